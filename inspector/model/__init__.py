"""What the kernel's rmap code makes of a set of mappings: pure functions, no target, no addresses."""
