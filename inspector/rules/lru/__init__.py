"""Rules of LRU lists."""
