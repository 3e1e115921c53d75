"""Rules run over a snapshot; violations turned into findings, one for each cause.

`inspector.check` is this package and can be called: ``inspector.check(snapshot)`` is `inspector.check.run.run_check`.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspector.findings import Report


class _CallablePackage(ModuleType):
    """Package and function of one name: importing any module of the package would replace the function."""

    def __call__(self, *args: Any, **kwargs: Any) -> "Report":
        """As `inspector.check.run.run_check`."""
        from inspector.check.run import run_check  # noqa: PLC0415  (every rule; some of the package need none)

        return run_check(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
