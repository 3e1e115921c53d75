"""Diagnoses: what a finding amounts to, with the reasons. Rules declare one of these as ``diagnose``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.findings import Diagnosis, Finding, Scalar
from inspector.rules.registry import Diagnose, find_rule
from inspector.text import counted
from inspector.walk.references import spare_references

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


def lost_rmap(reason: str) -> Diagnose:
    """The diagnosis of a mapping that exists and is counted, but that no rmap walk finds."""

    def diagnose(_s: Snapshot, finding: Finding) -> Diagnosis | None:
        if any(find_rule(slug).diagnose is miscounted for slug in finding.evidence.also):
            return None
        return Diagnosis(
            "rmap lost",
            [
                reason,
                "the counts agree with the page tables: the mapping exists and is counted",
                "the page can never be unmapped: reclaim and migration fail on it forever, truncation leaves it mapped",
            ],
        )

    return diagnose


def wrong_kind(reason: str) -> Diagnose:
    """The diagnosis of a page that may not be mapped in such a VMA."""

    def diagnose(_s: Snapshot, _finding: Finding) -> Diagnosis | None:
        consequence = "data written there reaches the wrong owner, or is lost when the page is reclaimed"
        return Diagnosis("wrong kind", [reason, consequence])

    return diagnose


def cow_break(reason: str) -> Diagnose:
    """The diagnosis of a page that is written in place although others share it."""

    def diagnose(_s: Snapshot, _finding: Finding) -> Diagnosis | None:
        return Diagnosis("COW break", [reason])

    return diagnose


def early_free(_s: Snapshot, finding: Finding) -> Diagnosis | None:
    """A free page that is still mapped."""
    return Diagnosis(
        "early free",
        [
            "the page has no references, as free pages do",
            _entries(max(finding.evidence.nr_mappings, finding.count)),
            "it was freed with mappings left, or mapped after it was freed: its next owner shares it with them",
        ],
    )


def freed_in_use(s: Snapshot, finding: Finding) -> Diagnosis | None:
    """A free page that is not in the state that free_pages_prepare() tests for."""
    at = _row(s, finding)
    if at < 0:
        return None
    mapped = int(s.counts.page_mappings[at])
    if mapped:
        return Diagnosis("early free", ["the page is on a list of free pages", _entries(mapped)])
    because = ["the page is free, but not in the state that freeing tests for"]
    if finding.observed.get("memcg_data"):
        because.append("a memory cgroup is charged for it still")
    if finding.observed.get("page_pool"):
        because.append("it bears the signature of a page pool, which did not let it go")
    because.append("no page table maps it: its user is in the kernel, or wrote to it after it was freed")
    return Diagnosis("freed in use", because)


def double_free(s: Snapshot, finding: Finding) -> Diagnosis | None:
    """A page on a CPU's list of free pages that is free to the buddy allocator as well, or is in use."""
    if finding.evidence.facts.get("type") == "buddy":
        return Diagnosis(
            "double free",
            [
                "the page is on a CPU's list of free pages",
                "it is also the first of a free block of the buddy allocator",
            ],
        )
    return freed_in_use(s, finding)


_HOLDERS = (("mappings", "mappings"), ("cache", "of the cache"), ("private", "of private data"))


def reference_lost(_s: Snapshot, finding: Finding) -> Diagnosis | None:
    """Fewer references than the mappings and caches of a folio hold."""
    facts, stored = finding.evidence.facts, finding.observed.get("_refcount")
    holders = ", ".join(f"{facts[name]} {what}" for name, what in _HOLDERS if facts.get(name))
    return Diagnosis(
        "reference lost",
        [
            f"_refcount is {stored}, but {finding.expected.get('at_least')} references are held: {holders}",
            "when the others are dropped the page is freed with some of these left",
        ],
    )


def miscounted(s: Snapshot, finding: Finding) -> Diagnosis | None:
    """A mapcount that differs: the references show whether a mapping was lost or only miscounted."""
    excess = _excess(finding.observed, finding.expected)
    at = _row(s, finding)
    if not excess or at < 0:
        return None
    if excess < 0:
        return Diagnosis(
            "underflow",
            [
                f"{counted(-excess, 'mapping')} fewer than the page tables hold",
                f"mapped by {_mms(finding)}",
                "the count reaches zero while entries are left: the page looks unmapped and can be freed",
            ],
        )
    spare = spare_references(s, at)
    more = f"{counted(excess, 'mapping')} more than the page tables hold"
    if spare is None:
        return Diagnosis("overcount", [more, "whether an entry was lost or only the count is wrong: inconclusive"])
    if spare >= excess:
        return Diagnosis(
            "leaked mapping",
            [
                more,
                f"{counted(spare, 'reference')} beyond those of mappings and cache: enough for the missing mappings",
                "an entry was lost or overwritten without being unmapped: the page is never freed",
            ],
        )
    return Diagnosis(
        "leaked count",
        [
            more,
            f"{counted(spare, 'reference')} beyond those of mappings and cache: too few for the missing mappings",
            "the page will be freed with a mapcount left: the kernel then reports a bad page",
        ],
    )


def _excess(observed: dict[str, Scalar], expected: dict[str, Scalar]) -> int:
    for name, stored in observed.items():
        wanted = expected.get(name)
        if isinstance(stored, int) and isinstance(wanted, int):
            return stored - wanted
    return 0


def _row(s: Snapshot, finding: Finding) -> int:
    return -1 if finding.subject.pfn is None else int(s.pages.memmap.row(finding.subject.pfn))


def _mms(finding: Finding) -> str:
    names = dict.fromkeys(
        f"pid {m.pid} {m.comm}" if m.pid is not None else f"mm {m.mm:#x}" for m in finding.evidence.mappings
    )
    listed = ", ".join(list(names)[:4])
    return f"{listed} and {len(names) - 4} more" if len(names) > 4 else listed or "no mm that exists"  # noqa: PLR2004


def _entries(nr: int) -> str:
    return "a page-table entry maps it" if nr == 1 else f"{nr} page-table entries map it"
