"""Snapshots of what one question is about: a folio and what its reverse map leads to, or some mms."""
