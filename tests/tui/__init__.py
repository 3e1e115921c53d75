"""The terminal interface: view models against the tables, screens driven by Pilot."""
