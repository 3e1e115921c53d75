"""What commands, screens and scripts show: versioned objects built from a snapshot, and the same objects as text."""
