"""Rules run over a snapshot; violations turned into findings, one for each cause.

`inspector.check` is this package and can be called: ``inspector.check(snapshot)`` is
`inspector.check.confirm.check_target`.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspector.findings import Report


class _CallablePackage(ModuleType):
    """Package and function of one name: importing any module of the package would replace the function."""

    def __call__(self, *args: Any, **kwargs: Any) -> "Report":
        """As `inspector.check.confirm.check_target`."""
        from inspector.check.confirm import check_target  # noqa: PLC0415  (every rule; some of the package need none)

        return check_target(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
