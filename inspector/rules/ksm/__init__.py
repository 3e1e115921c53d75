"""Rules of KSM."""
