"""What the doors show: versioned objects built from a snapshot, and the same objects as text for people."""
