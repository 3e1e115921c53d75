"""Rules of swap slots, the swap cache and swap clusters."""
