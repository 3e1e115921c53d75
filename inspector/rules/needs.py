"""What a rule must have whole before it may report anything: missing is not zero.

Rules of counters know one by one what they could not check. Rules that compare two structures do not: when a part of
one is missing, the other looks wrong. Their violations are suppressed then, and the coverage says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.walk.unread_tables import tables_not_followed

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

Needs = frozenset[str]
"""Kinds of unreadable things as `inspector.coverage.Missing` counts them."""

NOTHING: Needs = frozenset()
VMAS: Needs = frozenset(("tasks", "mms", "VMA tree nodes", "VMAs"))
PAGES: Needs = frozenset(("struct pages",))
ANON_VMAS: Needs = frozenset(("anon_vmas and chains",))
FILES: Needs = frozenset(("files and address_spaces",))
ZONES: Needs = frozenset(("zones and free lists",))

TABLES: Needs = frozenset(("page tables",))
CACHES: Needs = PAGES | FILES | frozenset(("page cache trees",))
"""What a file's own tree leads to."""
HUGETLB: Needs = PAGES | frozenset(("hugetlb pools and files",))
SWAP: Needs = frozenset(("swap devices", "swap clusters"))
"""What swap devices keep of their slots. Entries that are not known can only name more of these."""
SLOTS: Needs = CACHES | SWAP
"""Swap slots, and the folios and pages of files that name them."""
MERGED: Needs = PAGES | frozenset(("tasks", "mms", "KSM nodes and items"))

NO_CGROUPS = "memory cgroups or some counters are not in the dump"
"""What captures of versions before these were read lack, as a note: what follows from struct pages alone is checked."""


def lacking(s: Snapshot, needs: Needs) -> str:
    """What of the things that a rule needs whole is missing, in words; "" when nothing is.

    Every table that the rule needs is read first, so that the answer is the same whatever else was asked.
    """
    missing = s.read_whole(needs)
    if "page tables" in needs and len(tables_not_followed(s)):
        missing.add("page tables")
    return ", ".join(sorted(missing & needs))
