"""Rules of zones, free lists and node counters."""
