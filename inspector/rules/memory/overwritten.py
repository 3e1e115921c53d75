"""The rule of stretches of memory in which something else was written."""

from __future__ import annotations

import numpy as np

from inspector.rules.cause import Causes
from inspector.rules.registry import Phase, Rule, rule
from inspector.snapshot import Snapshot
from inspector.subjects import CPU_LIST, FREE_LIST, STRETCH
from inspector.tables.buddy import links_at
from inspector.violations import Violations, violations


def _settle(s: Snapshot, rule: Rule, causes: Causes) -> None:
    """Attach lists of free pages that lead into struct pages that were overwritten, or lack no more pages than these.

    Example: of the 335 pages of a CPU's list the struct pages of 54 were overwritten. The list ends at the first.
    """
    struct_pages = {row: each for row, each in enumerate(s.overwritten) if not each.physical}
    roots = [cause for cause in causes.of(rule) if cause.first_row in struct_pages]
    if not roots:
        return
    nr = sum(each.size // s.layout.memmap.page_size for each in struct_pages.values())
    for cause in [each for each in causes if each.rule.about in (FREE_LIST, CPU_LIST)]:
        observed, expected = cause.violations.details.observed, cause.violations.details.expected
        if "first_wrong_link" in observed:
            stretches = struct_pages.values()
            links = links_at(s.layout, int(cause.observed("first_wrong_link")[0]))
            is_its = any(each.address <= at < each.address + each.size for each in stretches for at in links)
        else:
            values = [(cause.observed(name)[0], cause.expected(name)[0]) for name in observed if name in expected]
            is_its = all(abs(int(found) - int(right)) <= nr for found, right in values)
        if is_its:
            causes.attach(cause, roots[0])


@rule("memory-stretch-damaged", STRETCH, "memory", Phase.WORDS, settle=_settle)
def memory_stretch_damaged(s: Snapshot) -> Violations:
    """Neighbouring entries of one page table, or neighbouring struct pages, hold something else.

    Invariant: what lies side by side in a page table are page-table entries, in the memory map struct pages of their
        zone.
    Why: nothing writes several of them at once but what takes the memory for its own: a use after free, a write past
        the end of an object, a device that writes to an old address (include/linux/mmzone.h, page_zone(); mm/memory.c,
        print_bad_pte()).
    Consequence: what was mapped or recorded there is lost: pages that are never freed, counters that are off, "Bad page
        map" and "Bad page state" in a flood.
    Exceptions: a single wrong word, which the rule of that word names. What was found because of the stretch is named
        in this finding; everything else is judged as if the stretch were not in the dump.
    See also: folioscope page PFN; folioscope va PID ADDRESS
    """
    found = s.overwritten
    return violations(
        np.arange(len(found)),
        observed={"holds": np.array([each.looks_like for each in found], dtype=np.str_)},
        expected={"holds": np.array([each.instead for each in found], dtype=np.str_)},
        checked=len(found),
        facts={
            "bytes": np.array([each.size for each in found], np.int64),
            "hex": np.array([each.hexadecimal for each in found], dtype=np.str_),
            "text": np.array([each.text for each in found], dtype=np.str_),
            "broke": np.array([each.broke for each in found], dtype=np.str_),
        },
    )
