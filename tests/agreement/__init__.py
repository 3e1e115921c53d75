"""Check, folio, explain, rmap and the screens report the same about a folio."""
