"""Windows: stretches of kernel code that leave counters, page tables and lists out of step for a moment."""
