"""The rule of stretches of memory in which something else was written."""

from __future__ import annotations

import numpy as np

from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import STRETCH
from inspector.violations import Violations, violations


@rule("memory-stretch-damaged", STRETCH, "memory", Phase.WORDS)
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
