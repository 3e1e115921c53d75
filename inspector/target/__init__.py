"""A vmcore, the running kernel or a QEMU guest opened: its types, symbols, identity and registers."""
