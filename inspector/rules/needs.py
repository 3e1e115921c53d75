"""What a rule must have whole before it may accuse anybody: missing is not zero.

Rules of counters know one by one what they could not look at. Rules that hold two structures against each other do
not: when a part of one is missing, the other looks wrong. They withhold what they suspect then, and say so.
"""

from __future__ import annotations

from collections.abc import Mapping

from inspector.rules.registry import Rule

_VMAS = ("tasks", "mms", "VMA tree nodes", "VMAs")
_ANY = ("*",)
"""Anything missing at all: these rules draw on most tables."""

_HOLDERS = frozenset(
    (
        "per-CPU batches",
        "kernel stacks",
        "open files",
        "pipes",
        "io_uring buffers",
        "zones and free lists",
        "holders of mms",
    )
)
"""Only the ledger of references, the rules of free memory and lower bounds draw on these."""

_OF_GROUP: dict[str, tuple[str, ...]] = {
    "anon-rmap": (*_VMAS, "struct pages", "anon_vmas and chains"),
    "file-rmap": (*_VMAS, "struct pages", "files and address_spaces"),
    "buddy": ("struct pages", "zones and free lists"),
    "compound": ("struct pages",),
    "hugetlb": _ANY,
    "ksm": _ANY,
    "node-counters": (*_VMAS, "struct pages"),
    "nonpresent": (*_VMAS, "struct pages"),
    "page-cache": _ANY,
    "rss": _VMAS,
    "swap": _ANY,
    "swap-cache": _ANY,
}
_OF_RULE: dict[str, tuple[str, ...]] = {
    "deposited-tables-mismatch": (*_VMAS, "struct pages"),
    "pgtables-bytes-mismatch": (*_VMAS, "struct pages"),
    "page-table-sharing-unexpected": _VMAS,
}


def lacking(rule: Rule, missing: Mapping[str, int]) -> str:
    """What of the things that a rule needs whole is missing, in words; "" when nothing is.

    Args:
        rule: The rule.
        missing: Unreadable things by kind, as `inspector.coverage.Missing` counts them.
    """
    needs = _OF_RULE.get(rule.slug, _OF_GROUP.get(rule.group, ()))
    gone = sorted(set(missing) - _HOLDERS) if needs == _ANY else [name for name in needs if missing.get(name)]
    return ", ".join(gone)
