"""The dataset: its tables and columns, and which version of it has which.

A column is never renamed or given another type. A later version adds columns at the end, with its number as ``since``;
a dataset of an earlier version is read with nulls in them. Columns that a reader does not know are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from inspector.records import dataclass

VERSION = 1
"""Of the schema that is written; files hold the number in their metadata."""

Type = Literal["string", "int64", "uint64", "bool", "strings", "time"]
"""``strings`` is a list of them, ``time`` a moment in UTC."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: It.
        type: What it holds.
        means: One sentence, for the documentation.
        since: The version of the schema that has it first.
    """

    name: str
    type: Type
    means: str
    since: int = 1


@dataclass(frozen=True)
class TableSchema:
    """A table of the dataset.

    Attributes:
        name: Also of its folder.
        means: What a row of it is.
        columns: In their order.
        by_kernel: Whether its files lie in a folder for each kernel release.
    """

    name: str
    means: str
    columns: tuple[Column, ...]
    by_kernel: bool = True


_DUMP = Column("dump", "string", "Identity of the dump's content, 16 hex digits.")
_NUMBER = Column("number", "int64", "Which finding of the dump, from 0 on.")

INPUTS = TableSchema(
    "inputs",
    "A path that was given, or found in a folder.",
    (Column("path", "string", "Absolute; bytes that are no UTF-8 are escaped."), _DUMP),
    by_kernel=False,
)
DUMPS = TableSchema(
    "dumps",
    "A dump, also one that could not be checked. Two paths with the same content are one dump.",
    (
        _DUMP,
        Column("state", "string", "checked, failed (opened or checked in vain), or unreadable (no content to know)."),
        Column("exit_code", "int64", "What `folioscope check` ends with: 0, 1, 3 or 4."),
        Column("error", "string", "Why it was not checked: target, timeout, memory or crashed."),
        Column("error_text", "string", "The same in words."),
        Column("file_bytes", "int64", "Size of the file."),
        Column("crash", "string", "The same for all files of one crash: of kernel build, boot and crash time."),
        Column("kind", "string", "core (ELF) or kdump."),
        Column("release", "string", "As `uname -r` prints it."),
        Column("version", "string", "As `uname -v` prints it."),
        Column("build_id", "string", "Of vmlinux, in hex."),
        Column("architecture", "string", "As `uname -m` prints it."),
        Column("scheme", "string", "The kernel's mapcount accounting."),
        Column("types_from", "string", "DWARF or BTF."),
        Column("page_size", "int64", "Bytes."),
        Column("paging_levels", "int64", "Levels of the page tables."),
        Column("hostname", "string", "Of the initial UTS namespace."),
        Column("nr_cpus", "int64", "CPUs online."),
        Column("memory_bytes", "int64", "RAM that the page allocator was given."),
        Column("booted_at", "time", "When the kernel was started."),
        Column("crashed_at", "time", "When it crashed, else what its clock last showed."),
        Column("panic_message", "string", "What panic() printed."),
        Column("complete", "bool", "Whether everything could be checked."),
        Column("missing_bytes", "int64", "Bytes that a truncated dump promises but does not hold."),
        Column("fail", "int64", "Findings of this severity."),
        Column("warn", "int64", "Findings of this severity."),
        Column("info", "int64", "Findings of this severity."),
        Column("notes", "strings", "What the check had to remark, and which other tables could not be made."),
        Column("checked_by", "string", "Version of folioscope."),
    ),
)
COVERAGE = TableSchema(
    "coverage",
    "How far one rule got in a dump.",
    (
        _DUMP,
        Column("rule", "string", "The rule."),
        Column("state", "string", "done, partial, not-applicable or not-checked."),
        Column("checked", "int64", "Subjects that it checked."),
        Column("unchecked", "int64", "Subjects that it could not check because data is missing."),
        Column("reason", "string", "Why."),
    ),
)
MISSING = TableSchema(
    "missing",
    "A kind of thing of which some cannot be read.",
    (_DUMP, Column("what", "string", "Struct pages, page tables and so on."), Column("number", "int64", "How many.")),
)
FINDINGS = TableSchema(
    "findings",
    "A finding.",
    (
        _DUMP,
        _NUMBER,
        Column("fingerprint", "string", "The same for the same fault elsewhere, 16 hex digits."),
        Column("signature", "string", "What the fingerprint is made of, in words."),
        Column("rule", "string", "The rule."),
        Column("severity", "string", "fail, warn or info."),
        Column("exactness", "string", "exact, bound or transient."),
        Column("title", "string", "What the rule says."),
        Column("count", "int64", "Subjects that broke the rule in the same way, folded into this finding."),
        Column("subject", "string", "Kind of what it is about."),
        Column("pfn", "int64", "Page frame number."),
        Column("page", "uint64", "Address of the struct page."),
        Column("order", "int64", "Of the folio."),
        Column("mm", "uint64", "Address of the mm_struct."),
        Column("pid", "int64", "Of the mm's first task."),
        Column("comm", "string", "Its name."),
        Column("va", "uint64", "User virtual address."),
        Column("vma", "uint64", "Address of the vm_area_struct."),
        Column("address", "uint64", "Kernel address of a thing of any other kind."),
        Column("name", "string", "Of the subject."),
        Column("verdict", "string", "The diagnosis."),
        Column("because", "strings", "Its reasons."),
        Column("also", "strings", "Rules that the same cause breaks."),
        Column("looks_like", "strings", "What `explain` proposes, for the first of each fingerprint in a dump."),
        Column("mappings", "int64", "How many mappings prove it; the first are in evidence."),
        Column("look", "string", "The command that shows more, without the program and the dump."),
    ),
)
EVIDENCE = TableSchema(
    "evidence",
    "A value or a mapping that proves a finding.",
    (
        _DUMP,
        _NUMBER,
        Column("what", "string", "observed, expected, fact or mapping."),
        Column("name", "string", "Of the value."),
        Column("value", "string", "It: words, a decimal number, true or false; null where it is unknown."),
        Column("mm", "uint64", "Of a mapping: address of the mm_struct."),
        Column("va", "uint64", "Of a mapping: user virtual address."),
        Column("level", "string", "Of a mapping: PTE, PMD or PUD."),
        Column("pfn", "int64", "Of a mapping: page frame number."),
        Column("entry", "uint64", "Of a mapping: the entry."),
        Column("pid", "int64", "Of a mapping: the mm's first task."),
        Column("comm", "string", "Of a mapping: its name."),
    ),
)
FOLIOS = TableSchema(
    "folios",
    "The large folios of user memory of one kind and order.",
    (
        _DUMP,
        Column("kind", "string", "anon, ksm, shmem or file."),
        Column("order", "int64", "log2 of their pages."),
        Column("folios", "int64", "How many."),
        Column("bytes", "int64", "Their memory."),
        Column("by_pmd", "int64", "Folios that a PMD maps whole."),
        Column("by_ptes", "int64", "Folios all of whose pages PTEs map."),
        Column("partly", "int64", "Folios of which some pages are mapped."),
        Column("unmapped", "int64", "Folios that nothing maps."),
        Column("unmapped_bytes", "int64", "Of those mapped in part, what nothing maps."),
        Column("queued", "int64", "Folios on a split queue."),
        Column("swapcache", "int64", "Folios in the swap cache."),
        Column("mlocked", "int64", "Folios that are mlocked."),
        Column("stored_anon", "int64", "The kernel's own count of anonymous folios of this order."),
        Column("stored_partly", "int64", "Its count of those marked as partially mapped."),
    ),
)
COUNTERS = TableSchema(
    "counters",
    "A counter: of the check, or the kernel's own beside the sum that was counted.",
    (
        _DUMP,
        Column(
            "place", "string", "check, a zone, a size of hugetlb folios, all nodes, or a node (and zone by number)."
        ),
        Column("name", "string", "The counter."),
        Column("stored", "int64", "What the kernel stored; null for those of the check."),
        Column("counted", "int64", "What was counted; null where nothing was."),
        Column("in_motion", "bool", "A lock is held under which the two may differ."),
    ),
)
MEMORY = TableSchema(
    "memory",
    "The pages of one kind in one zone.",
    (
        _DUMP,
        Column("kind", "string", "What the pages are."),
        Column("zone", "string", "The zone; null for pages that name none."),
        Column("pages", "int64", "How many."),
        Column("bytes", "int64", "Their memory."),
    ),
)

TABLES = (INPUTS, DUMPS, COVERAGE, MISSING, FINDINGS, EVIDENCE, FOLIOS, COUNTERS, MEMORY)
"""All of them."""

OF_A_DUMP = (COVERAGE, MISSING, FINDINGS, EVIDENCE, FOLIOS, COUNTERS, MEMORY, DUMPS)
"""Those with a file for each dump, in the order in which they are written: what is in `DUMPS` is whole."""


def columns_of(table: TableSchema, rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns; what a row does not give, and what a column cannot hold, is null."""
    return {c.name: [_HELD[c.type](row.get(c.name)) for row in rows] for c in table.columns}


def _between(first: int, last: int) -> Callable[[Any], Any]:
    return lambda value: value if value is not None and first <= value <= last else None


def _text(value: str | None) -> str | None:
    return None if value is None else value.encode("utf-8", "backslashreplace").decode()


_HELD: dict[str, Callable[[Any], Any]] = {
    "string": _text,
    "int64": _between(-(1 << 63), (1 << 63) - 1),
    "uint64": _between(0, (1 << 64) - 1),
    "bool": lambda value: value,
    "strings": lambda value: [_text(one) for one in value or ()],
    "time": _between(0, 253_402_300_799),
}
"""What a column of each type holds of a value: a damaged dump may say anything. Times end with the year 9999."""
