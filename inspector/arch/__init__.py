"""What page-table entries mean on each architecture; pure functions of arrays and numbers."""
