"""Names of places: every word by which people call a page, a process, a VMA, a file ..., and what it leads to."""
