"""Rules run over a snapshot; violations turned into findings, one for each cause.

`inspector.check` is this package and can be called: ``inspector.check(snapshot)`` is `run_check`.
"""

import sys
from types import ModuleType
from typing import Any

from inspector.check.run import run_check
from inspector.findings import Report

__all__ = ["run_check"]


class _CallablePackage(ModuleType):
    """Package and function of one name: importing any module of the package would replace the function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Report:
        """As `run_check`."""
        return run_check(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
