"""What the command line, the screens and scripts show: versioned objects built from a snapshot, and the same objects as text for people."""
