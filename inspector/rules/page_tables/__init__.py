"""Rules of page tables themselves."""
