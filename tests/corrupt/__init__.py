"""Random damage: bytes of a vmcore edited where the inspector reads them; it must neither crash nor hang nor miss."""
