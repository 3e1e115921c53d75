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
class SchemaColumn:
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
    columns: tuple[SchemaColumn, ...]
    by_kernel: bool = True


_DUMP = SchemaColumn("dump", "string", "Identity of the dump's content, 16 hex digits.")
_NUMBER = SchemaColumn("number", "int64", "Which finding of the dump, from 0 on.")

INPUTS = TableSchema(
    "inputs",
    "A path that was given, or found in a folder.",
    (SchemaColumn("path", "string", "Absolute; bytes that are no UTF-8 are escaped."), _DUMP),
    by_kernel=False,
)
DUMPS = TableSchema(
    "dumps",
    "A dump, also one that could not be checked. Two paths with the same content are one dump.",
    (
        _DUMP,
        SchemaColumn(
            "state", "string", "checked, failed (opened or checked in vain), or unreadable (no content to know)."
        ),
        SchemaColumn("exit_code", "int64", "What `folioscope check` ends with: 0, 1, 3 or 4."),
        SchemaColumn("error", "string", "Why it was not checked: target, timeout, memory or crashed."),
        SchemaColumn("error_text", "string", "The same in words."),
        SchemaColumn("file_bytes", "int64", "Size of the file."),
        SchemaColumn("crash", "string", "The same for all files of one crash: of kernel build, boot and crash time."),
        SchemaColumn("kind", "string", "core (ELF) or kdump."),
        SchemaColumn("release", "string", "As `uname -r` prints it."),
        SchemaColumn("version", "string", "As `uname -v` prints it."),
        SchemaColumn("build_id", "string", "Of vmlinux, in hex."),
        SchemaColumn("architecture", "string", "As `uname -m` prints it."),
        SchemaColumn("scheme", "string", "The kernel's mapcount accounting."),
        SchemaColumn("types_from", "string", "DWARF or BTF."),
        SchemaColumn("page_size", "int64", "Bytes."),
        SchemaColumn("paging_levels", "int64", "Levels of the page tables."),
        SchemaColumn("hostname", "string", "Of the initial UTS namespace."),
        SchemaColumn("nr_cpus", "int64", "CPUs online."),
        SchemaColumn("memory_bytes", "int64", "RAM that the page allocator was given."),
        SchemaColumn("booted_at", "time", "When the kernel was started."),
        SchemaColumn("crashed_at", "time", "When it crashed, else what its clock last showed."),
        SchemaColumn("panic_message", "string", "What panic() printed."),
        SchemaColumn("complete", "bool", "Whether everything could be checked."),
        SchemaColumn("missing_bytes", "int64", "Bytes that a truncated dump promises but does not hold."),
        SchemaColumn("fail", "int64", "Findings of this severity."),
        SchemaColumn("warn", "int64", "Findings of this severity."),
        SchemaColumn("info", "int64", "Findings of this severity."),
        SchemaColumn("notes", "strings", "What the check had to remark, and which other tables could not be made."),
        SchemaColumn("checked_by", "string", "Version of folioscope."),
    ),
)
COVERAGE = TableSchema(
    "coverage",
    "How far one rule got in a dump.",
    (
        _DUMP,
        SchemaColumn("rule", "string", "The rule."),
        SchemaColumn("state", "string", "done, partial, not-applicable or not-checked."),
        SchemaColumn("checked", "int64", "Subjects that it checked."),
        SchemaColumn("unchecked", "int64", "Subjects that it could not check because data is missing."),
        SchemaColumn("reason", "string", "Why."),
    ),
)
MISSING = TableSchema(
    "missing",
    "A kind of thing of which some cannot be read.",
    (
        _DUMP,
        SchemaColumn("what", "string", "Struct pages, page tables and so on."),
        SchemaColumn("number", "int64", "How many."),
    ),
)
FINDINGS = TableSchema(
    "findings",
    "A finding.",
    (
        _DUMP,
        _NUMBER,
        SchemaColumn("fingerprint", "string", "The same for the same fault elsewhere, 16 hex digits."),
        SchemaColumn("signature", "string", "What the fingerprint is made of, in words."),
        SchemaColumn("rule", "string", "The rule."),
        SchemaColumn("severity", "string", "fail, warn or info."),
        SchemaColumn("exactness", "string", "exact, bound or transient."),
        SchemaColumn("title", "string", "What the rule says."),
        SchemaColumn("count", "int64", "Subjects that broke the rule in the same way, folded into this finding."),
        SchemaColumn("subject", "string", "Kind of what it is about."),
        SchemaColumn("pfn", "int64", "Page frame number."),
        SchemaColumn("page", "uint64", "Address of the struct page."),
        SchemaColumn("order", "int64", "Of the folio."),
        SchemaColumn("mm", "uint64", "Address of the mm_struct."),
        SchemaColumn("pid", "int64", "Of the mm's first task."),
        SchemaColumn("comm", "string", "Its name."),
        SchemaColumn("va", "uint64", "User virtual address."),
        SchemaColumn("vma", "uint64", "Address of the vm_area_struct."),
        SchemaColumn("address", "uint64", "Kernel address of a thing of any other kind."),
        SchemaColumn("name", "string", "Of the subject."),
        SchemaColumn("verdict", "string", "The diagnosis."),
        SchemaColumn("because", "strings", "Its reasons."),
        SchemaColumn("also", "strings", "Rules that the same cause breaks."),
        SchemaColumn("looks_like", "strings", "What `explain` proposes, for the first of each fingerprint in a dump."),
        SchemaColumn("mappings", "int64", "How many mappings prove it; the first are in evidence."),
        SchemaColumn("look", "string", "The command that shows more, without the program and the dump."),
    ),
)
EVIDENCE = TableSchema(
    "evidence",
    "A value or a mapping that proves a finding.",
    (
        _DUMP,
        _NUMBER,
        SchemaColumn("what", "string", "observed, expected, fact or mapping."),
        SchemaColumn("name", "string", "Of the value."),
        SchemaColumn("value", "string", "It: words, a decimal number, true or false; null where it is unknown."),
        SchemaColumn("mm", "uint64", "Of a mapping: address of the mm_struct."),
        SchemaColumn("va", "uint64", "Of a mapping: user virtual address."),
        SchemaColumn("level", "string", "Of a mapping: PTE, PMD or PUD."),
        SchemaColumn("pfn", "int64", "Of a mapping: page frame number."),
        SchemaColumn("entry", "uint64", "Of a mapping: the entry."),
        SchemaColumn("pid", "int64", "Of a mapping: the mm's first task."),
        SchemaColumn("comm", "string", "Of a mapping: its name."),
    ),
)
FOLIOS = TableSchema(
    "folios",
    "The large folios of user memory of one kind and order.",
    (
        _DUMP,
        SchemaColumn("kind", "string", "anon, ksm, shmem or file."),
        SchemaColumn("order", "int64", "log2 of their pages."),
        SchemaColumn("folios", "int64", "How many."),
        SchemaColumn("bytes", "int64", "Their memory."),
        SchemaColumn("by_pmd", "int64", "Folios that a PMD maps whole."),
        SchemaColumn("by_ptes", "int64", "Folios all of whose pages PTEs map."),
        SchemaColumn("partly", "int64", "Folios of which some pages are mapped."),
        SchemaColumn("unmapped", "int64", "Folios that nothing maps."),
        SchemaColumn("unmapped_bytes", "int64", "Of those mapped in part, what nothing maps."),
        SchemaColumn("queued", "int64", "Folios on a split queue."),
        SchemaColumn("swapcache", "int64", "Folios in the swap cache."),
        SchemaColumn("mlocked", "int64", "Folios that are mlocked."),
        SchemaColumn("stored_anon", "int64", "The kernel's own count of anonymous folios of this order."),
        SchemaColumn("stored_partly", "int64", "Its count of those marked as partially mapped."),
    ),
)
COUNTERS = TableSchema(
    "counters",
    "A counter: of the check, or the kernel's own beside the sum that was counted.",
    (
        _DUMP,
        SchemaColumn(
            "place", "string", "check, a zone, a size of hugetlb folios, all nodes, or a node (and zone by number)."
        ),
        SchemaColumn("name", "string", "The counter."),
        SchemaColumn("stored", "int64", "What the kernel stored; null for those of the check."),
        SchemaColumn("counted", "int64", "What was counted; null where nothing was."),
        SchemaColumn("in_motion", "bool", "A lock is held under which the two may differ."),
    ),
)
MEMORY = TableSchema(
    "memory",
    "The pages of one kind in one zone.",
    (
        _DUMP,
        SchemaColumn("kind", "string", "What the pages are."),
        SchemaColumn("zone", "string", "The zone; null for pages that name none."),
        SchemaColumn("pages", "int64", "How many."),
        SchemaColumn("bytes", "int64", "Their memory."),
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
