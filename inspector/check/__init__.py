"""Rules run over a snapshot; violations turned into findings, one for each cause."""

from inspector.check.run import run_check

__all__ = ["run_check"]
