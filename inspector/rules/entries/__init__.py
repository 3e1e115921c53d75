"""Rules of single page-table entries."""
