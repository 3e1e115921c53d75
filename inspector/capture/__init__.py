"""A small vmcore of just what the inspector reads, without user data."""
