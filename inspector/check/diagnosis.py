"""What findings amount to: the disease that several symptoms of one cause have in common, with the reasons."""

from __future__ import annotations

from inspector.findings import Diagnosis, Finding, Scalar
from inspector.snapshot import Snapshot
from inspector.text import counted
from inspector.walk.references import spare_references

_COUNTS = frozenset(
    ("mapcount-too-low", "mapcount-too-high", "mapcount-mapping-missing", "entire-mapcount-mismatch")
    + ("large-mapcount-mismatch", "nr-pages-mapped-mismatch")
)
_RMAP = {
    "anon-index-mismatch": "the folio's index is not that of the address",
    "anon-root-mismatch": "folio and VMA belong to different families of anon_vmas",
    "anon-vma-unreachable": "the anon_vma that the folio names does not lead to the VMA",
    "anon-vma-chain-damaged": "the VMA's chains do not lead to its anon_vma",
    "avc-link-missing": "a chain between VMA and anon_vma is linked on one side only",
    "file-index-mismatch": "the folio's index is not that of the place in the VMA",
    "file-mapping-mismatch": "the folio names another file than the VMA, or none",
    "ksm-mapping-unreachable": "no rmap_item of the stable node leads to the entry",
    "i-mmap-vma-missing": "the file's tree of VMAs does not hold the VMA",
    "vma-pgoff-mismatch": "all indexes in the VMA are off by the same distance",
    "vma-anon-vma-missing": "the VMA has no anon_vma",
}
_KIND = {
    "shared-vma-anon-page-unexpected": "an anonymous page is mapped where only pages of the file may be",
    "private-file-page-write-bit-unexpected": "a page of the page cache can be written through a private mapping",
}
_COW = {
    "exclusive-page-mm-count-high": "the page is marked as one process's own, but several map it: writes by one are "
    "not copied, so that the others see them",
    "exclusive-page-mapcount-high": "the page is marked as mapped once, but more entries map it: writes are not copied",
    "exclusive-swap-entry-sharing-unexpected": "the slot is marked as one process's own, but others refer to it: each "
    "would get "
    "the page back as its own",
    "writable-page-exclusive-missing": "an entry allows writing to a page that may be shared: no fault comes to copy "
    "it first",
}
_FREED = frozenset(
    ("free-page-state-unexpected", "cpu-free-page-state-unexpected", "free-page-mapcount-unexpected")
    + ("free-folio-pincount-unexpected",)
)


def diagnose(s: Snapshot, finding: Finding) -> Diagnosis | None:
    """The diagnosis of a finding; None where it says all there is, or work in flight explains it."""
    if finding.exactness == "transient" or finding.severity == "info":
        return None
    slug, broken = finding.rule, {finding.rule, *finding.evidence.also}
    if slug in _RMAP:
        return _lost_rmap(broken, slug)
    if slug in _KIND:
        return Diagnosis(
            "wrong kind",
            [_KIND[slug], "what is written there reaches the wrong owner, or is lost when the page is taken away"],
        )
    if slug in _COW:
        return Diagnosis("COW break", [_COW[slug]])
    if slug == "free-page-mapping-unexpected":
        return _early_free(finding)
    if slug in _FREED:
        return _freed(s, finding)
    if slug == "refcount-low":
        return _reference_lost(finding)
    return _of_counts(s, finding) if slug in _COUNTS else None


def _lost_rmap(broken: set[str], slug: str) -> Diagnosis | None:
    if broken & _COUNTS:
        return None
    return Diagnosis(
        "rmap lost",
        [
            _RMAP[slug],
            "the counts agree with the page tables: the mapping exists and is counted",
            "the page can never be unmapped: reclaim and migration fail on it forever, truncation leaves it mapped",
        ],
    )


def _early_free(finding: Finding) -> Diagnosis:
    return Diagnosis(
        "early free",
        [
            "the page has no references, as free pages do",
            _entries(max(finding.evidence.nr_mappings, finding.count)),
            "it was freed with mappings left, or mapped after it was freed: whoever gets it next shares it with them",
        ],
    )


def _freed(s: Snapshot, finding: Finding) -> Diagnosis | None:
    at = _row(s, finding)
    if at < 0:
        return None
    if finding.rule == "cpu-free-page-state-unexpected" and finding.evidence.facts.get("type") == "buddy":
        return Diagnosis(
            "double free",
            ["the page is on a CPU's list of free pages", "it is the first of a free block of the buddy allocator too"],
        )
    mapped = int(s.counts.page_mappings[at])
    if mapped:
        return Diagnosis("early free", ["the page is on a list of free pages", _entries(mapped)])
    return Diagnosis(
        "freed in use",
        [
            "the page is free, but not in the state that freeing tests for",
            "no page table maps it: whoever holds it is in the kernel, or wrote to it after it was freed",
        ],
    )


def _reference_lost(finding: Finding) -> Diagnosis:
    facts, stored = finding.evidence.facts, finding.observed.get("_refcount")
    holders = ", ".join(f"{facts[name]} {what}" for name, what in _HOLDERS if facts.get(name))
    return Diagnosis(
        "reference lost",
        [
            f"{stored} references are held, but these need {finding.expected.get('at_least')}: {holders}",
            "when the others are dropped the page is freed with some of these left",
        ],
    )


_HOLDERS = (("mappings", "mappings"), ("cache", "of the cache"), ("private", "of private data"))


def _of_counts(s: Snapshot, finding: Finding) -> Diagnosis | None:
    """Counts beside references tell a lost mapping from one that was never undone."""
    excess = _excess(finding.observed, finding.expected)
    at = _row(s, finding)
    if not excess or at < 0:
        return None
    spare = spare_references(s, at)
    if excess < 0:
        return Diagnosis(
            "underflow",
            [
                f"{counted(-excess, 'mapping')} fewer than the page tables hold",
                f"mapped by {_mms(finding)}",
                "the count reaches zero while entries are left: the page is taken for unmapped and can be freed",
            ],
        )
    said = f"{counted(excess, 'mapping')} more than the page tables hold"
    if spare is None:
        return Diagnosis(
            "overcount", [said, "whether an entry or only the count is wrong, references do not tell here"]
        )
    if spare >= excess:
        return Diagnosis(
            "leaked mapping",
            [
                said,
                f"{counted(spare, 'reference')} beyond those of mappings and cache: enough for those that are gone",
                "an entry was lost or overwritten without being unmapped: the page is never freed",
            ],
        )
    return Diagnosis(
        "leaked count",
        [
            said,
            f"{counted(spare, 'reference')} beyond those of mappings and cache: too few for mappings that were lost",
            "the page will be freed with a count left: the kernel reports it as a bad page then",
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
    told = ", ".join(list(names)[:4])
    return f"{told} and {len(names) - 4} more" if len(names) > 4 else told or "nobody that is still there"  # noqa: PLR2004


def _entries(nr: int) -> str:
    return "a page-table entry maps it" if nr == 1 else f"{nr} page-table entries map it"
