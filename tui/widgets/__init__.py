"""Widgets: each shows one kind of thing from a view model and says what was chosen."""
