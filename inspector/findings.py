"""What a check says: findings with evidence, coverage and the versioned report they travel in."""

from __future__ import annotations

from typing import Literal

import msgspec

from inspector.hex_json import Hex, Wide

SCHEMA = "folioscope.check/2"
"""Name and version of the report object; the number grows when a program reading it must change."""

Severity = Literal["fail", "warn", "info"]
"""``fail``: the kernel's own rules forbid it. ``warn``: legal but notable. ``info``: worth knowing."""

Exactness = Literal["exact", "bound", "transient"]
"""``exact``: an equality. ``bound``: a one-sided rule. ``transient``: explained by work in flight."""

Scalar = str | Wide | bool | None


class Subject(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a finding is about. Addresses are kernel virtual unless the name says otherwise."""

    kind: str
    """folio, page, task, mm, vma, table (page table), entry (page-table entry), anon_vma, anon_vma_chain,
    address_space, stable_node, ksm, hstate, cache_entry (of a page cache), swap_slot, swap_device,
    vmstat (a counter), zone, free_list, cpu_list (of free pages), lruvec (LRU lists of a node), split_queue, memory
    (a stretch of it)."""
    pfn: int | None = None
    page: Hex | None = None
    """Address of the struct page."""
    order: int | None = None
    mm: Hex | None = None
    pid: int | None = None
    comm: str | None = None
    va: Hex | None = None
    """User virtual address."""
    vma: Hex | None = None
    name: str | None = None
    address: Hex | None = None
    """Kernel address of a thing of any other kind."""

    @property
    def identity(self) -> tuple[str | int | None, ...]:
        """What makes it the same in two looks."""
        return (self.kind, self.pfn, self.mm, self.va, self.vma, self.address, self.name)


class Mapping(msgspec.Struct, frozen=True, omit_defaults=True):
    """One leaf entry offered as evidence."""

    mm: Hex
    va: Hex
    level: str
    pfn: int
    entry: Hex
    pid: int | None = None
    comm: str | None = None
    vma: Hex | None = None
    page_index: int = 0
    """Which page of the folio the entry maps first."""


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """What proves a finding: the facts by name and the mappings behind the count."""

    facts: dict[str, Scalar] = {}
    mappings: list[Mapping] = []
    nr_mappings: int = 0
    """How many mappings there are; ``mappings`` holds the first of them."""
    also: list[str] = []
    """Slugs of rules that the same cause also breaks, folded into this finding."""


class Diagnosis(msgspec.Struct, frozen=True):
    """What a finding amounts to."""

    verdict: str
    """early free, freed in use, double free, reference lost, underflow, leaked mapping, leaked count,
    overcount, rmap lost, COW break, wrong kind or flipped bit."""
    because: list[str]
    """The reasons, sentence by sentence."""


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One claim: this rule, about this subject, observed against expected, with its evidence."""

    rule: str
    severity: Severity
    exactness: Exactness
    subject: Subject
    title: str
    observed: dict[str, Scalar]
    expected: dict[str, Scalar]
    evidence: Evidence
    look: str
    """A command that shows more."""
    count: int = 1
    """How many subjects broke the rule in the same way, when they were folded into this finding."""
    diagnosis: Diagnosis | None = None
    """What the symptoms amount to, where they are conclusive."""
    fingerprint: str = ""
    """16 hex digits: the same for the same fault in another folio, process, boot or machine."""

    @property
    def key(self) -> str:
        """What makes it the same in two checks: its rule and its subject."""
        return " ".join(map(str, (self.rule, *self.subject.identity)))


class RuleCoverage(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far one rule got."""

    rule: str
    checked: int
    """Subjects the rule checked."""
    unchecked: int = 0
    """Subjects it could not check because data is missing."""
    state: Literal["done", "partial", "not-applicable", "not-checked"] = "done"
    reason: str = ""


class Coverage(msgspec.Struct, frozen=True):
    """What was read, what could not be, and what that means for each rule."""

    complete: bool
    missing: dict[str, int]
    """Unreadable things by table: pages, tables, mms, vmas and so on."""
    rules: list[RuleCoverage]
    notes: list[str]
    not_audited: list[str] = []
    """Families of counters and structures that no rule checks in any dump; empty where only some rules ran."""


class Confirmation(msgspec.Struct, frozen=True):
    """How a kernel that ran on was checked: possible violations were read again, and those that changed dismissed."""

    looks: int
    """How many looks were taken."""
    seconds: list[float]
    """What each look took."""
    suspects: int
    """Possible violations that the first look found."""
    dismissed: int
    """Those of them that changed meanwhile, or were gone; they are not reported."""
    why: dict[str, int]
    """How many were dismissed for what reason."""
    rules: dict[str, int]
    """How many were dismissed of each rule."""


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """The one object that ``check --format json`` prints for one target."""

    schema: str
    target: dict[str, Scalar]
    coverage: Coverage
    summary: dict[str, Scalar]
    findings: list[Finding]
    exit_code: int
    confirmation: Confirmation | None = None
    """Of a kernel that ran on while it was checked."""
    paused_seconds: float | None = None
    """For how long a guest was stopped to be checked."""
