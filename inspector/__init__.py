"""Folioscope: a kernel memory-state inspector built on drgn.

All that a script needs; each name is imported when it is first used:

    import inspector

    kernel = inspector.open_core("vmcore")
    report = kernel.check()
    print(inspector.as_text(report))
    for finding in report.findings:
        print(inspector.as_text(kernel.explain(finding.subject.pfn)))
    kernel.tables.folios["order"]      # a column as a NumPy array
    kernel.tables.folios.arrow()       # likewise .pandas() and .polars()
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspector.api import Kernel, KernelTable, KernelTables, from_program, open_core, open_live, open_qemu
    from inspector.check.confirm import check_target as check
    from inspector.errors import Exit, FolioscopeError, TargetError, UsageError
    from inspector.findings import Finding, Report
    from inspector.report.api import as_text, explain
    from inspector.report.explain import Explanation
    from inspector.snapshot import Snapshot
    from inspector.target.target import Target

__version__ = "0.1.0"

_HOME = {
    "open_core": "api",
    "open_live": "api",
    "open_qemu": "api",
    "from_program": "api",
    "Kernel": "api",
    "KernelTable": "api",
    "KernelTables": "api",
    "Target": "target.target",
    "Snapshot": "snapshot",
    "explain": "report.api",
    "as_text": "report.api",
    "Explanation": "report.explain",
    "Finding": "findings",
    "Report": "findings",
    "Exit": "errors",
    "FolioscopeError": "errors",
    "TargetError": "errors",
    "UsageError": "errors",
}
"""The module that each public name is imported from; `check` is a package that can be called."""

__all__ = [
    "Exit",
    "Explanation",
    "Finding",
    "FolioscopeError",
    "Kernel",
    "KernelTable",
    "KernelTables",
    "Report",
    "Snapshot",
    "Target",
    "TargetError",
    "UsageError",
    "as_text",
    "check",
    "explain",
    "from_program",
    "open_core",
    "open_live",
    "open_qemu",
]


def __getattr__(name: str) -> Any:
    if name == "check":
        return import_module("inspector.check")
    if name not in _HOME:
        msg = f"module 'inspector' has no attribute {name!r}"
        raise AttributeError(msg)
    value = globals()[name] = getattr(import_module(f"inspector.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
