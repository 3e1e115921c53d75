"""One folio accounted for: what its counters must be, who holds its references, what the kernel may do with it."""
