"""What was opened, how, what kernel it is, how it counts, and what the dump lacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Literal

import msgspec
import numpy as np

from inspector.aimed.pages import sample_of
from inspector.check.left_out import likely_reason
from inspector.check.target_facts import target_facts
from inspector.columns import distinct
from inspector.coverage import Missing
from inspector.findings import Scalar
from inspector.hex_json import Hex
from inspector.report.screen import Screen, render_facts
from inspector.snapshot import Snapshot
from inspector.tables.mms import read_mms
from inspector.tables.vmas import build_vmas
from inspector.text import clean, counted, duration, grouped, size

_MAX_SAMPLE = 1 << 21
"""Struct pages that are read at most: 128 MiB, a quarter of a second."""

_MAX_VMAS = 1 << 15
"""VMAs whose trees are read at most."""

UNKNOWN = "unknown"


class LevelInfo(msgspec.Struct, frozen=True):
    """One level of the page tables."""

    level: str
    shift: int
    """log2 of the bytes that one entry covers."""
    entries: int
    user_entries: int
    can_map_pages: bool


class OptionInfo(msgspec.Struct, frozen=True):
    """An option of the kernel's configuration."""

    name: str
    """Without ``CONFIG_``."""
    on: bool
    evidence: str
    """What shows it, in words."""


class MemoryMapInfo(msgspec.Struct, frozen=True):
    """The array of struct pages."""

    address: Hex
    struct_page_bytes: int
    ranges: list[tuple[int, int]]
    """Page frames [first, end) that have a struct page."""
    struct_pages: int
    struct_pages_read: int
    """How many of them were read to answer; a large memory map is only sampled."""
    struct_pages_unreadable: int


class InfoReport(msgspec.Struct, frozen=True):
    """The object that ``info --format json`` prints."""

    schema: Literal["folioscope.info/2"]
    target: dict[str, Scalar]
    identity: dict[str, Scalar]
    """Facts about the kernel; null when they are unknown."""
    identity_from: dict[str, str]
    """Where each fact was read."""
    notes: list[str]
    """How types and symbols were found."""
    scheme: str | None
    """Name of the mapcount accounting; null when the evidence is mixed."""
    scheme_means: str
    scheme_evidence: list[str]
    configuration: list[OptionInfo]
    page_tables: list[LevelInfo]
    swap_types: dict[str, int]
    """How many of the 32 swap type numbers each purpose takes."""
    memory_map: MemoryMapInfo
    missing: dict[str, int]
    """Unreadable things by kind: struct pages as far as they were read, tasks, their mms, and what leads to VMAs."""
    missing_because: str
    """What they are likely missing for; "" where nothing explains it."""
    missing_bytes: int
    """Bytes that a truncated dump promises but does not hold."""


def build_info(s: Snapshot) -> InfoReport:
    """Gather it; of a large memory map only a sample is read."""
    sample, read = sample_of(s, _MAX_SAMPLE)
    scheme, layout = sample.scheme, s.layout
    memmap = layout.memmap
    identity = asdict(s.target.identity)
    sources = identity.pop("got_from")
    swap = getattr(layout.arch, "swap_types", None)
    missing = _kinds_missing(s, sample)
    return InfoReport(
        schema="folioscope.info/2",
        target=target_facts(sample),
        identity={k: clean(v) if isinstance(v, str) else v for k, v in identity.items()},
        identity_from=sources,
        notes=[clean(n) for n in s.target.notes],
        scheme=scheme.name if scheme else None,
        scheme_means=f"{scheme.value} ({scheme.kernels})" if scheme else "the evidence is mixed",
        scheme_evidence=[e for e in sample.scheme_evidence if e],
        configuration=[OptionInfo(o, on, layout.config.evidence[o]) for o, on in layout.config.options.items()],
        page_tables=[
            LevelInfo(x.level.name, x.shift, x.entries, x.user_entries, x.can_leaf) for x in layout.arch.shapes
        ],
        swap_types=dict(asdict(swap)) if swap is not None else {},
        memory_map=MemoryMapInfo(
            memmap.vmemmap,
            memmap.page_size,
            list(zip(memmap.starts.tolist(), memmap.ends.tolist(), strict=True)),
            memmap.nr_pages,
            read,
            sample.pages.nr_unreadable,
        ),
        missing=missing.counts,
        missing_because=likely_reason(layout, missing),
        missing_bytes=s.target.missing_bytes,
    )


def _kinds_missing(s: Snapshot, sample: Snapshot) -> Missing:
    """What can be found missing without reading all of memory."""
    out = Missing()
    out.add("struct pages", sample.pages.nr_unreadable)
    tasks = s.tasks
    out.add("tasks", s.missing.counts.get("tasks", 0))
    mms, lost = read_mms(s.layout, tasks, distinct(tasks.mm))
    out.add("mms", lost)
    _, trees = build_vmas(s.layout, mms.take(np.flatnonzero(np.cumsum(mms.map_count) <= _MAX_VMAS)))
    out.add("VMA tree nodes", len(trees.unreadable))
    out.add("VMAs", len(trees.missing))
    return out


def render_info(screen: Screen, info: InfoReport) -> Iterator[str]:
    """The report for people."""
    for title, facts in (
        ("Target", _target(info)),
        ("Kernel", _kernel(info)),
        (
            "Counting",
            [
                ("scheme", f"{info.scheme or UNKNOWN}: {info.scheme_means}"),
                ("known by", ", ".join(info.scheme_evidence)),
            ],
        ),
        ("Configuration", [(o.name, f"{'on' if o.on else 'off'} ({o.evidence})") for o in info.configuration]),
        ("Memory", _memory(info)),
        ("Missing", _missing(info)),
    ):
        yield screen.paint("bold", title)
        yield from render_facts(screen, facts, "  ")


TARGET_KINDS = {
    "core": "ELF vmcore",
    "kdump": "kdump-compressed vmcore",
    "live": "running kernel",
    "qemu": "QEMU guest",
}
"""What a target was opened from, in words."""


def _target(info: InfoReport) -> list[tuple[str, str]]:
    target = info.target
    return [
        ("path", str(target["path"])),
        ("kind", TARGET_KINDS.get(str(target["kind"]), str(target["kind"]))),
        ("types from", str(target["types_from"])),
        ("symbols from", str(target["symbols_from"])),
        *[("note", n) for n in info.notes],
    ]


def _kernel(info: InfoReport) -> list[tuple[str, str]]:
    facts = info.identity

    def shown(name: str) -> str:
        value = facts.get(name)
        return UNKNOWN if value is None else str(value)

    stopped, uptime = facts.get("stopped_at"), facts.get("uptime")
    panic, memory, page = facts.get("panic_message"), facts.get("memory_bytes"), facts.get("page_size")
    return [
        ("release", shown("release")),
        ("version", shown("version")),
        ("build id", shown("build_id")),
        ("architecture", shown("architecture")),
        ("host", shown("hostname")),
        ("CPUs online", shown("nr_cpus")),
        ("memory", size(int(memory)) if isinstance(memory, int) else UNKNOWN),
        ("page size", size(int(page)) if isinstance(page, int) else UNKNOWN),
        ("clock", _date(int(stopped)) if isinstance(stopped, int) else UNKNOWN),
        ("uptime", duration(int(uptime)) if isinstance(uptime, int) else UNKNOWN),
        ("panic", UNKNOWN if panic is None else str(panic) or "none in the log"),
    ]


def _date(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s after 1970, which is not a date"


def _memory(info: InfoReport) -> list[tuple[str, str]]:
    table, memmap = info.page_tables, info.memory_map
    leaves = [f"{x.level} {size(1 << x.shift)}" for x in reversed(table) if x.can_map_pages]
    taken = ", ".join(f"{name} {n}" for name, n in info.swap_types.items() if n)
    return [
        ("page tables", f"{len(table)} levels ({', '.join(x.level for x in table)}), mapping {', '.join(leaves)}"),
        ("swap types", taken or UNKNOWN),
        ("struct pages", f"{grouped(memmap.struct_pages)} of {memmap.struct_page_bytes} bytes at {memmap.address:#x}"),
        ("page frames", ", ".join(f"{first:#x}-{end - 1:#x}" for first, end in memmap.ranges)),
    ]


def _missing(info: InfoReport) -> list[tuple[str, str]]:
    memmap = info.memory_map
    read = memmap.struct_pages_read
    how = "all were read" if read == memmap.struct_pages else f"{grouped(read)} were sampled"
    gone = f"{counted(memmap.struct_pages_unreadable, 'struct page')} not in the dump ({how})"
    facts = [("struct pages", gone if memmap.struct_pages_unreadable else f"none ({how})")]
    facts += [(what, f"{grouped(nr)} not in the dump") for what, nr in info.missing.items() if what != "struct pages"]
    if info.missing_because:
        facts.append(("likely", info.missing_because))
    if info.missing_bytes:
        facts.insert(0, ("truncated", f"{size(info.missing_bytes)} at the end of the dump"))
    return facts
