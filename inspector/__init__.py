"""Folioscope: a kernel memory-state inspector built on drgn."""

__version__ = "0.1.0"
