"""The table of flipped bits: every bit of every kind of word turned over alone, and what a check then finds.

``python -m tests.faults.bits`` turns over every bit in the captured dump of each kernel, an hour of CPU time, and
writes BITS.md anew; ``-k 7.3 -w PTE`` only those of a kernel and of words with that in their names. What was found is
kept in bits.tsv as soon as a word is done, so that a run can be stopped; ``-m`` goes on with the words that are missing
there, ``-u`` with the bits that are undecided, ``-s`` with those that gave several findings, and ``-r`` only writes
BITS.md from it.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

from inspector.check.run import run_check
from inspector.snapshot import Snapshot
from tests.faults.bit_reasons import reason_for
from tests.faults.bit_words import WORDS, Place
from tests.faults.overlay import KERNELS, core_path, planted, sound
from tests.faults.plants import MissingError

RESULTS = Path(__file__).with_name("bits.tsv")
TABLE = Path(__file__).with_name("BITS.md")

NOTHING, UNREAD, NO_PLACE = "nothing", "missing from the dump", "-"
"""No finding; no finding, but the check says that something cannot be read; no such word in a dump."""

Found = dict[tuple[str, str], dict[int, str]]
"""By kernel and word, what was found for each bit; empty where a kernel has no such word."""


def place_of(kernel: str, name: str) -> Place | None:
    """Where a word is in a kernel's dump, None where that has no such word."""
    try:
        return WORDS[name](sound(core_path("fixture", kernel)))
    except MissingError:
        return None


def found_for(kernel: str, places: Iterable[Place], bit: int) -> str:
    """What a check finds with one bit turned over in each of some words."""
    path = core_path("fixture", kernel)
    s = sound(path)
    report = run_check(planted(path, *(place.flipped(s, bit) for place in places)))
    rules = Counter(f.rule + ("" if f.severity == "fail" else f" ({f.severity})") for f in report.findings)
    if not rules:
        return NOTHING if report.coverage.missing == _missing_anyway(path) else UNREAD
    return ", ".join(rule if nr == 1 else f"{rule} x{nr}" for rule, nr in sorted(rules.items()))


@cache
def _missing_anyway(path: str) -> dict[str, int]:
    """What a check of the sound dump says to be missing."""
    return run_check(planted(path)).coverage.missing


def found_in(kernel: str, names: Sequence[str], bits: Mapping[str, Sequence[int]]) -> dict[str, dict[int, str]]:
    """What a check finds for each bit of words of one size, or for those given.

    The bit is turned over in all of the words at once: where each finding is of one of them, by its subject, these need
    not be checked alone. Nor need others be of which, turned over together without these, nothing is found.
    """
    places = {name: place for name in names if (place := place_of(kernel, name)) is not None}
    out: dict[str, dict[int, str]] = {name: {} for name in names}
    for bit in range(max((8 * place.size for place in places.values()), default=0)):
        here = {name: place for name, place in places.items() if bit in bits.get(name, range(8 * place.size))}
        together = found_together(kernel, here, bit) if len(here) > 1 else {}
        left = {name: place for name, place in here.items() if name not in together}
        if len(left) > 1 and found_for(kernel, left.values(), bit) == NOTHING:
            together |= dict.fromkeys(left, NOTHING)
        for name, place in here.items():
            out[name][bit] = together[name] if name in together else found_for(kernel, [place], bit)
    return out


def found_together(kernel: str, places: Mapping[str, Place], bit: int) -> dict[str, str]:
    """What a check finds for each word that has a finding of its own when the bit is turned over in all of them.

    None of them where a finding is of something else, or something cannot be read.
    """
    path = core_path("fixture", kernel)
    s = sound(path)
    report = run_check(planted(path, *(place.flipped(s, bit) for place in places.values())))
    subjects = {name: subject_of(s, place) for name, place in places.items()}
    mine: dict[str, list[str]] = {name: [] for name in places}
    if report.coverage.missing != _missing_anyway(path):
        return {}
    for f in report.findings:
        subject = {("page", f.subject.pfn), ("VMA", f.subject.vma)}
        owners = [name for name, own in subjects.items() if own in subject]
        if len(owners) != 1:
            return {}
        mine[owners[0]].append(f.rule + ("" if f.severity == "fail" else f" ({f.severity})"))
    return {name: rules[0] for name, rules in mine.items() if len(rules) == 1}


def subject_of(s: Snapshot, place: Place) -> tuple[str, int | None]:
    """The page whose struct page, or the VMA whose vm_area_struct, holds a word."""
    memmap = s.layout.memmap
    page = place.address - (place.address - memmap.vmemmap) % memmap.page_size
    pfn = -1 if place.physical else int(memmap.pfns(np.array([page], np.uint64))[0])
    if pfn >= 0:
        return "page", pfn
    size = s.layout.struct("struct vm_area_struct").size
    row = np.flatnonzero((s.vmas.addr <= np.uint64(place.address)) & (place.address < s.vmas.addr + np.uint64(size)))
    return "VMA", None if place.physical or not len(row) else int(s.vmas.addr[row[0]])


def ranges(bits: Iterable[int]) -> str:
    """Bits as people write them: ``0-3 7``."""
    out: list[list[int]] = []
    for bit in sorted(bits):
        if out and bit == out[-1][1] + 1:
            out[-1][1] = bit
        else:
            out.append([bit, bit])
    return " ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in out)


def parse_ranges(text: str) -> list[int]:
    """The other way round."""
    out: list[int] = []
    for part in text.split():
        first, _, last = part.partition("-")
        out += range(int(first), int(last or first) + 1)
    return out


def grouped(found: dict[int, str]) -> dict[str, list[int]]:
    """The bits by what was found for them, in the order of the first bit."""
    out = defaultdict(list)
    for bit in sorted(found):
        out[found[bit]].append(bit)
    return dict(out)


def load() -> Found:
    """What is in the file of results."""
    out: Found = {}
    for line in RESULTS.read_text("utf-8").splitlines() if RESULTS.exists() else ():
        kernel, name, bits, what = line.split("\t")
        cell = out.setdefault((kernel, name), {})
        cell.update(dict.fromkeys([] if bits == NO_PLACE else parse_ranges(bits), what))
    return out


def store(found: Found) -> None:
    """Write the file of results."""
    lines = []
    for name in WORDS:
        for kernel in KERNELS:
            if (cell := found.get((kernel, name))) is None:
                continue
            lines += [f"{kernel}\t{name}\t{ranges(bits)}\t{what}" for what, bits in grouped(cell).items()]
            if not cell:
                lines.append(f"{kernel}\t{name}\t{NO_PLACE}\t{NO_PLACE}")
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


_Task = tuple[str, list[str], dict[str, list[int]]]


def _run(task: _Task) -> tuple[str, dict[str, dict[int, str]]]:
    return task[0], found_in(*task)


def _tasks(pairs: Iterable[tuple[str, str]], found: Found, again: Again | None) -> list[_Task]:
    """Words of one kernel and of one name in several things (``flags`` of pages) together, others alone."""
    out: dict[tuple[str, str], list[str]] = defaultdict(list)
    for kernel, name in pairs:
        out[kernel, name.rpartition(": ")[2]].append(name)
    return [
        (kernel, names, {name: again(found, kernel, name) for name in names} if again is not None else {})
        for (kernel, _), names in out.items()
    ]


Again = Callable[[Found, str, str], list[int]]
"""Which bits of a kernel's word to ask for again."""


def undecided(found: Found, kernel: str, name: str) -> list[int]:
    """Bits of a word for which nothing was found, and no reason is declared."""
    cell = found.get((kernel, name), {})
    return [bit for bit, what in cell.items() if what == NOTHING and not reason_for(kernel, name, bit)]


def several(found: Found, kernel: str, name: str) -> list[int]:
    """Bits of a word for which there was more than one finding."""
    return [bit for bit, what in found.get((kernel, name), {}).items() if _are_several(what)]


def _are_several(what: str) -> bool:
    return ", " in what or bool(re.search(r" x\d+$", what))


_STYLE = """\
# Flipped bits

Made by `python -m tests.faults.bits`; do not edit. In the captured vmcore of each kernel every bit of each of these
words is turned over alone, and the whole dump is checked. *found*: the rules whose findings name it (`x3`: three
findings). *legal*: nothing is found, and the kernel may have written the word so, for the reason with that number.
*missing*: the check says that something cannot be read that the word leads to, since the capture has no memory there.
*undecided*: nothing is found, and nothing is declared. *not tried*: not in bits.tsv yet.
"""


def render(found: Found) -> str:
    """BITS.md."""
    reasons: list[str] = []
    counts: dict[str, Counter[str]] = {kernel: Counter() for kernel in KERNELS}
    body = []
    for name in WORDS:
        body += [f"## {name}\n", "| kernel | bits | what |", "| --- | --- | --- |"]
        for kernel in KERNELS:
            cell = found.get((kernel, name))
            if not cell:
                body.append(f"| {kernel} | all | {'not tried' if cell is None else 'no such word'} |")
                counts[kernel]["not tried"] += cell is None
                continue
            shown: dict[str, list[int]] = defaultdict(list)
            for bit in sorted(cell):
                kind, text = _verdict(kernel, name, bit, cell[bit], reasons)
                counts[kernel][kind] += 1
                shown[text].append(bit)
            body += [f"| {kernel} | {ranges(bits)} | {text} |" for text, bits in shown.items()]
        body.append("")
    kinds = ("one finding", "several findings", "legal", "missing", "undecided")
    head = [f"| kernel | bits | {' | '.join(kinds)} | words not tried |", "| --- |" + " ---: |" * (len(kinds) + 2)]
    for kernel, count in counts.items():
        row = [sum(count[kind] for kind in kinds), *(count[kind] for kind in kinds), count["not tried"]]
        head.append(f"| {kernel} | {' | '.join(map(str, row))} |")
    why = ["## Reasons\n", *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1)), ""]
    return "\n".join([_STYLE, *head, "", *body, *why])


def _verdict(kernel: str, name: str, bit: int, what: str, reasons: list[str]) -> tuple[str, str]:
    """The kind of a cell and its text; reasons are numbered as they come."""
    if what == UNREAD:
        return "missing", "missing"
    if what != NOTHING:
        return ("several findings" if _are_several(what) else "one finding"), f"found: {what}"
    if not (reason := reason_for(kernel, name, bit)):
        return "undecided", "undecided"
    if reason not in reasons:
        reasons.append(reason)
    return "legal", f"legal ({reasons.index(reason) + 1})"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-k", "--kernel", action="append", choices=KERNELS, help="only this kernel; may be repeated")
    parser.add_argument("-w", "--word", action="append", help="only words with this in their names; may be repeated")
    parser.add_argument("-m", "--missing", action="store_true", help="only what is not in bits.tsv yet")
    parser.add_argument("-u", "--undecided", action="store_true", help="only bits that are undecided so far")
    parser.add_argument("-s", "--several", action="store_true", help="only bits that gave several findings so far")
    parser.add_argument("-r", "--render", action="store_true", help="only write BITS.md from bits.tsv")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    options = parser.parse_args()
    found = load()
    names = [name for name in WORDS if not options.word or any(part in name for part in options.word)]
    pairs = [(kernel, name) for kernel in options.kernel or KERNELS for name in names]
    pairs = [pair for pair in pairs if not options.render and not (options.missing and pair in found)]
    again = undecided if options.undecided else several if options.several else None
    if again is not None:
        pairs = [pair for pair in pairs if again(found, *pair)]
    with ProcessPoolExecutor(options.jobs) as pool:
        for kernel, cells in pool.map(_run, _tasks(pairs, found, again)):
            for name, cell in cells.items():
                kept = found.get((kernel, name), {}) if again is not None else {}
                found[kernel, name] = kept | cell
            store(found)
            for name, cell in cells.items():
                print(kernel, name, {what: ranges(bits) for what, bits in grouped(cell).items()}, flush=True)
    TABLE.write_text(render(found), encoding="utf-8")


if __name__ == "__main__":
    main()
