"""Screens, one a kind of place."""
