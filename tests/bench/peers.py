"""The same questions put to drgn and crash, as their users put them: with DWARF, and with places that are mapped.

``python -m tests.bench.peers objects CORE VMLINUX PLACES`` measures loops over drgn objects on samples.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.guests.cache import guests_folder

SAMPLE_PAGES = 20_000
SAMPLE_ADDRESSES = 5000


def vmlinux_of(release: str) -> Path | None:
    """The vmlinux with DWARF that `make guests` fetched for this kernel, or None."""
    for stamp in sorted(guests_folder().glob("*/vmlinux.release")):
        if stamp.read_text().strip() == release:
            return stamp.with_name("vmlinux")
    return None


def drgn_command(core: str, vmlinux: Path, code: str) -> list[str]:
    """drgn's own command line with some code."""
    drgn = str(Path(sys.executable).with_name("drgn"))
    return [drgn, "-q", "-c", core, "-s", str(vmlinux), "--no-default-symbols", "-e", code]


def crash_code(words: str) -> str:
    """Code for drgn's command line that runs one of its commands after crash's."""
    return f"from drgn.commands import run_command; run_command(prog, {f'crash {words}'!r})"


_RMAP = """
from drgn import Object
from drgn.helpers.linux.mm import follow_page, pfn_to_page
from drgn.helpers.linux.rbtree import rbtree_inorder_for_each_entry
page = pfn_to_page(prog, {pfn:#x})
anon_vma = Object(prog, "struct anon_vma *", value=page.mapping.value_() & ~3)
index = page.member_("index" if hasattr(page[0], "index") else "__folio_index").value_()
for avc in rbtree_inorder_for_each_entry("struct anon_vma_chain", anon_vma.rb_root.rb_root.address_of_(), "rb"):
    vma = avc.vma
    if hasattr(vma[0], "__vm_anon_pgoff_lo"):
        first = vma.member_("__vm_anon_pgoff_lo").value_() | vma.member_("__vm_anon_pgoff_hi").value_() << 32
    else:
        first = vma.vm_pgoff.value_()
    va = vma.vm_start.value_() + (index - first << 12)
    if not vma.vm_start.value_() <= va < vma.vm_end.value_():
        continue
    try:
        if follow_page(vma.vm_mm, va) == page:
            print(hex(vma), hex(va))
    except Exception as error:
        if type(error).__name__ != "FaultError":
            raise
"""


@dataclass(frozen=True)
class Asked:
    """One question, as each of them answers it; empty where it has no answer.

    Attributes:
        ours: Words of our command line.
        objects: Code for drgn, with its helpers and objects.
        commands: Words of drgn's command after crash's.
        crash: A line for crash.
        shows: What an answer of a peer must contain, any of them: one that shows nothing is no answer.
    """

    ours: tuple[str, ...]
    objects: str = ""
    commands: str = ""
    crash: str = ""
    shows: tuple[str, ...] = ("",)

    def is_answer(self, text: str) -> bool:
        """Whether a peer's output answers the question."""
        return bool(text.strip()) and any(word in text for word in self.shows)


def questions(places: dict[str, Any], capture_to: Path) -> dict[str, Asked]:
    """What the bench asks, by name."""
    pid, pfn, va, page = places["pid"], places["pfn"], places["va"], places["page"]
    mm = f"from drgn.helpers.linux import *; mm = find_task(prog, {pid}).mm; "
    of_page = f"from drgn.helpers.linux.mm import *; print(pfn_to_page(prog, {pfn:#x})[0])"
    listed = "[print(hex(v.vm_start), hex(v.vm_end), hex(v.vm_flags)) for v in for_each_vma(mm)]"
    by_page = f"kmem -p {page:x}"
    return {
        "info": Asked(("info",), "print(prog['UTS_RELEASE'])", "sys", "sys", (places["release"],)),
        "page": Asked(("page", f"{pfn:#x}"), of_page, by_page, by_page, ("mapping", "MAPPING")),
        "folio": Asked(("folio", f"{pfn:#x}"), of_page, by_page, by_page, ("mapping", "MAPPING")),
        "explain": Asked(("explain", f"{pfn:#x}")),
        "rmap": Asked(("rmap", f"{pfn:#x}"), _RMAP.format(pfn=pfn), shows=(f"{va:#x}",)),
        "va": Asked(
            ("va", str(pid), f"{va:#x}"),
            f"{mm}print(hex(follow_page(mm, {va:#x})))",
            f"vtop -u -c {pid} {va:x}",
            f"vtop -u -c {pid} {va:x}",
            (f"{page:x}", f"{pfn << 12:x}"),
        ),
        "vmas": Asked(("vmas", str(pid)), mm + listed, f"vm {pid}", f"vm {pid}"),
        "check": Asked(("check",)),
        "capture": Asked(("capture", str(capture_to), "--force")),
    }


def crash_command(core: str, vmlinux: Path) -> list[str]:
    """crash without its banner, or nothing where it is not installed."""
    crash = shutil.which("crash")
    return [crash, "-s", str(vmlinux), core] if crash else []


def measure_objects(core: str, vmlinux: str, places: dict[str, Any]) -> dict[str, float]:
    """CPU seconds of drgn's objects for one page and one address, on samples; all addresses must be hits."""
    import drgn  # noqa: PLC0415  (the bench itself stays small)
    from drgn.helpers.linux.mm import compound_head, follow_page, for_each_page, page_to_pfn  # noqa: PLC0415

    start = time.process_time()
    prog = drgn.Program()
    prog.set_core_dump(core)
    prog.load_debug_info([vmlinux])
    opened = time.process_time()
    nr = 0
    for page in itertools.islice(for_each_page(prog), SAMPLE_PAGES):
        page._mapcount.counter.value_()
        page._refcount.counter.value_()
        page.flags.read_()
        page.mapping.value_()
        nr += 1
    swept = time.process_time()
    mm = drgn.Object(prog, "struct mm_struct *", value=places["mm"])
    counts, addresses, found = Counter[int](), places["addresses"][:SAMPLE_ADDRESSES], []
    for va in addresses:
        page = follow_page(mm, va)
        counts[compound_head(page).value_()] += 1
        found.append(page)
    followed = time.process_time()
    hits = sum(page_to_pfn(page).value_() == pfn for page, pfn in zip(found, places["pfns"], strict=False))
    return {
        "open": opened - start,
        "page": (swept - opened) / nr,
        "address": (followed - swept) / len(addresses),
        "addresses": len(addresses),
        "hits": hits,
    }


def main(words: Sequence[str]) -> None:
    """In a process of its own: the samples, as JSON."""
    _, core, vmlinux, places = words
    print(json.dumps(measure_objects(core, vmlinux, json.loads(Path(places).read_text()))))


if __name__ == "__main__":
    main(sys.argv[1:])
