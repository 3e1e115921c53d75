"""What this kernel looks like: offsets, flag bits, accounting scheme, memory map, probed and not guessed."""
