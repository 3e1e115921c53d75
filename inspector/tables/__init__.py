"""Struct bytes turned into columns, one file a table."""
