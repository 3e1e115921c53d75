"""The rules, by what they are about; each module under this package declares its own and is found by being there."""

from __future__ import annotations

from importlib import import_module
from pkgutil import walk_packages

from inspector.rules.registry import Rule, all_rules, find_rule, select_rules

for _module in walk_packages(__path__, f"{__name__}."):
    import_module(_module.name)

__all__ = ["Rule", "all_rules", "find_rule", "select_rules"]
