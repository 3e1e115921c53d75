"""Rules of VMAs."""
