"""Rules of a folio's mapcounts and mm ids."""
