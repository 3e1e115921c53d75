"""Rules of the page cache."""
