"""The terminal interface: browse what the inspector found."""
