"""Findings as rows, each with the places that it leads to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inspector.findings import Finding, Mapping
from inspector.report.check import show, subject_words
from inspector.report.rules import rule_sections
from inspector.snapshot import Snapshot
from inspector.subjects import kind_of
from inspector.text import clean
from tui.places import (
    AnonVmaPlace,
    FilePlace,
    FindingPlace,
    FindingsPlace,
    FolioPlace,
    MemoryPlace,
    MmPlace,
    Place,
    RmapPlace,
    RulePlace,
    VmaPlace,
)
from tui.session import Session
from tui.views.rows import ColumnData, Rows, ViewColumn, number, words

SEVERITY_MARKS = {"fail": "✗ fail", "warn": "! warn", "info": "i info"}
"""A severity as a character, a word and, beside them, a colour."""

_RANK = {"fail": 0, "warn": 1, "info": 2}


def _severities(findings: list[Finding]) -> ColumnData:
    codes = np.array([_RANK[f.severity] for f in findings], np.int64)
    return ColumnData(ViewColumn("severity"), codes, str, tuple(SEVERITY_MARKS.values()), lambda n: tuple(_RANK)[n])


def finding_rows(session: Session) -> Rows:
    """One row a finding, in the report's order."""
    found = session.findings
    marks = ["·" if session.has_seen(f) else "+" if session.is_new(f) else "" for f in found]
    notes = [clean(session.note(f.key)) for f in found]
    fields = [
        number("#", np.arange(1, len(found) + 1), str),
        words("seen", marks),
        _severities(found),
        words("rule", [f.rule for f in found], least=16),
        words("about", [short_subject(f) for f in found], least=16),
        number("times", np.array([f.count for f in found], np.int64), drop=2, blank=1),
        words("sure", [f.exactness for f in found], drop=4),
        *([words("note", notes, least=8)] if any(notes) else []),
    ]
    return Rows(fields, FindingPlace)


def findings_of_rule(session: Session, slug: str) -> Rows:
    """The findings of one rule."""
    rows = [i for i, f in enumerate(session.findings) if f.rule == slug]
    fields = [
        number("#", np.array(rows, np.int64) + 1, str),
        words("about", [short_subject(session.findings[i]) for i in rows], least=20),
        number("times", np.array([session.findings[i].count for i in rows], np.int64), blank=1),
    ]
    return Rows(fields, lambda row: FindingPlace(rows[row]))


def rule_rows(session: Session) -> Rows:
    """One row a rule that found something: the worst first, then the most."""
    groups: dict[tuple[int, str], list[int]] = {}
    for i, f in enumerate(session.findings):
        groups.setdefault((_RANK[f.severity], f.rule), []).append(i)
    order = sorted(groups.items(), key=lambda g: (g[0][0], -sum(session.findings[i].count for i in g[1]), g[0][1]))
    firsts = [session.findings[rows[0]] for _, rows in order]
    counts = [sum(session.findings[i].count for i in rows) for _, rows in order]
    fields = [
        _severities(firsts),
        words("rule", [f.rule for f in firsts], least=20),
        number("found", np.array(counts, np.int64)),
        words("first", [short_subject(f) for f in firsts], least=12),
    ]

    def leads(row: int) -> Place:
        (_, slug), rows = order[row]
        return FindingPlace(rows[0]) if len(rows) == 1 else FindingsPlace(slug)

    return Rows(fields, leads)


def short_subject(finding: Finding) -> str:
    """What a finding is about, in few words."""
    s = finding.subject
    words_ = [s.kind.replace("_", " ")]
    if s.pfn is not None:
        words_.append(f"{s.pfn:#x}")
    if s.order:
        words_.append(f"order {s.order}")
    if s.pid is not None:
        words_.append(f"{s.pid} {clean(s.comm or '')}".rstrip())
    if s.va is not None:
        words_.append(f"{s.va:#x}")
    if s.pfn is None and s.va is None and s.address is not None:
        words_.append(f"{s.address:#x}")
    return " ".join([*words_, clean(s.name)] if s.name else words_)


@dataclass(frozen=True)
class Link:
    """Somewhere that a finding leads to.

    Attributes:
        what: Kind of thing.
        text: Which one.
        place: Where; None for what has no screen.
    """

    what: str
    text: str
    place: Place | None


def links_of(s: Snapshot, finding: Finding) -> list[Link]:
    """What a finding is about and what proves it, as places to go to; the subject first."""
    subject, kind = finding.subject, kind_of(finding.subject)
    out: list[Link] = []
    if subject.pfn is not None and subject.pfn >= 0:
        order = f", order {subject.order}" if subject.order else ""
        out.append(Link("folio", f"pfn {subject.pfn:#x}{order}: counters, pages, references", FolioPlace(subject.pfn)))
        if kind.mapped:
            out.append(Link("rmap", "the rmap walk beside the page tables", RmapPlace(subject.pfn)))
    if kind.opens == "anon_vma" and subject.address is not None:
        out.append(Link("anon_vma", f"{subject.address:#x}", AnonVmaPlace(subject.address)))
    if kind.opens == "address_space" and subject.address is not None:
        out.append(Link("file", clean(subject.name or f"{subject.address:#x}"), FilePlace(subject.address)))
    if subject.mm is not None:
        mm = row_of(s.mms.addr, subject.mm)
        who = (
            f"{subject.pid} {clean(subject.comm or '')}" if subject.pid is not None else f"mm {subject.mm:#x}, no task"
        )
        vma = find_vma(s, mm, subject.vma, subject.va)
        if vma >= 0:
            out.append(Link("vma", f"{who}, {int(s.vmas.start[vma]):#x}", VmaPlace(mm, vma, subject.va)))
        if mm >= 0:
            out.append(Link("process", who, MmPlace(mm)))
    out += [_mapping_link(s, m) for m in finding.evidence.mappings]
    if subject.pfn is not None and subject.pfn >= 0:
        out.append(Link("memory", "where it lies in physical memory", MemoryPlace(subject.pfn)))
    out.append(Link("rule", f"{finding.rule}: {clean(finding.title)}", RulePlace(finding.rule)))
    return out


def _mapping_link(s: Snapshot, m: Mapping) -> Link:
    mm = row_of(s.mms.addr, m.mm)
    vma = find_vma(s, mm, m.vma, m.va)
    who = f"{m.pid} {clean(m.comm or '')}" if m.pid is not None else f"mm {m.mm:#x}"
    text = f"{who}  {m.va:#x}  {m.level}  pfn {m.pfn:#x} +{m.page_index}  {m.entry:#018x}"
    return Link("mapping", text, VmaPlace(mm, vma, m.va) if vma >= 0 else MmPlace(mm) if mm >= 0 else None)


def link_rows(links: list[Link]) -> Rows:
    """The links as a table."""
    fields = [words("go to", [x.what for x in links], shade=lambda _: "info"), words("", [x.text for x in links])]
    return Rows(fields, lambda row: links[row].place)


def row_of(column: np.ndarray[tuple[int], np.dtype[np.uint64]], value: int) -> int:
    """Row of a value, -1 when there is none."""
    found = np.flatnonzero(column == np.uint64(value & ((1 << 64) - 1)))
    return int(found[0]) if len(found) else -1


def find_vma(s: Snapshot, mm_idx: int, addr: int | None, va: int | None) -> int:
    """Row of a VMA by its own address, else by an address inside it; -1 when there is none."""
    row = row_of(s.vmas.addr, addr) if addr is not None else -1
    if row >= 0 or va is None or mm_idx < 0:
        return row
    inside = (s.vmas.mm_idx == mm_idx) & (s.vmas.start <= np.uint64(va)) & (s.vmas.end > np.uint64(va))
    found = np.flatnonzero(inside)
    return int(found[0]) if len(found) else -1


def comparison(finding: Finding) -> list[tuple[str, str, str]]:
    """``(name, stored, expected)`` of every value that the finding is about."""
    names = list(dict.fromkeys([*finding.observed, *finding.expected]))
    return [
        (
            clean(name),
            show(name, finding.observed[name]) if name in finding.observed else "",
            show(name, finding.expected[name]) if name in finding.expected else "",
        )
        for name in names
    ]


def facts_of(finding: Finding) -> list[tuple[str, str]]:
    """What else is known about it."""
    facts = [("about", subject_words(finding.subject))]
    facts += [(clean(name), show(name, value)) for name, value in finding.evidence.facts.items()]
    if finding.count > 1:
        facts.append(("times", f"{finding.count} subjects broke the rule in this way"))
    if finding.evidence.nr_mappings and "mappings" not in finding.evidence.facts:
        shown = len(finding.evidence.mappings)
        facts.append(
            (
                "mappings",
                f"{finding.evidence.nr_mappings}" + (f", {shown} listed" * (shown < finding.evidence.nr_mappings)),
            )
        )
    if finding.evidence.also:
        facts.append(("also breaks", ", ".join(finding.evidence.also)))
    return facts


def page_sections(page: str) -> list[tuple[str, str]]:
    """A rule's manual page as headings with their text."""
    return [(name, " ".join(paragraphs)) for name, paragraphs in rule_sections(page)]
