"""One folio accounted for: what its counters must be and why, who holds its references, what the kernel may do with it."""
