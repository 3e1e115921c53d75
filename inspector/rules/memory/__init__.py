"""Rules of memory itself, whatever it is used for."""
