"""What is shown and checked of each system of the kernel's memory management, with the planted faults that prove it."""
