"""What one run of the interface knows: the snapshot, the findings so far, and names for places. No Textual in here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock, RLock, get_ident
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from inspector.errors import FolioscopeError
from inspector.text import clean, clean_bytes
from tui.places import AnonVmaPlace, FilePlace, FolioPlace, MmPlace, Place, RmapPlace, UserPlace, VmaPlace
from tui.recent import KEPT, place_of, words_of
from tui.state import State, dump_name

if TYPE_CHECKING:
    from inspector.columns import U64
    from inspector.findings import Finding, Report
    from inspector.snapshot import Snapshot

T = TypeVar("T")

_MOMENT = 0.02
"""Seconds between two questions whether another thread is done."""

_INSTANT = 0.002
"""Seconds between two questions whether a rest is over."""

_COURTESY = 0.1
"""Seconds that the check rests when a key is pressed: what the key changes is on the screen by then."""


class StoppedError(FolioscopeError):
    """The work is not wanted any more."""

    def __init__(self) -> None:
        super().__init__("stopped")


class Turns:
    """A lock that one thread may take several times, and that long work gives away while others wait for it."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._count = Lock()
        self._waiting = 0

    def __enter__(self) -> None:
        with self._count:
            self._waiting += 1
        self._lock.acquire()
        with self._count:
            self._waiting -= 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def give_way(self) -> None:
        """Let a waiting thread go first; called by the holder, which holds it once."""
        if self._waiting:
            self._lock.release()
            time.sleep(0.01)
            self._lock.acquire()


class Session:
    """One target being browsed.

    Args:
        snapshot: Of the target; None when ``opener`` is to make it.
        report: Of a check of it, once there is one.
        opener: Opens the target; called in a worker.

    Attributes:
        report: Of the check; None while it runs.
        findings: Those found so far.
        before: The report before the last refresh.
        seen: What was marked as seen, by `Finding.key`.
        file_names: Paths of files whose screens were shown, by the address of their address_space.
        doing: What is being done, steps done and steps in all; None when nothing is.
        generation: Grows with every change.
        refreshes: How often the target was read again.
        lock: Held while tables are built: a snapshot is not made for two threads.
        awaits_check: Whether a check is about to begin; workers leave it to read what they need, too.
        closed: Whether the interface is gone, so that nothing need be read any more.
    """

    def __init__(
        self,
        snapshot: Snapshot | None = None,
        report: Report | None = None,
        *,
        opener: Callable[[], Snapshot] | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._opener = opener
        self.report = report
        self.findings: list[Finding] = list(report.findings) if report else []
        self.before: Report | None = None
        self.refreshes = 0
        self.seen: set[str] = set()
        self.file_names: dict[int, str] = {}
        self.doing: tuple[str, int, int] | None = None
        self.failed: Exception | None = None
        self.generation = 0
        self.lock = Turns()
        self.awaits_check = False
        self.closed = False
        self._stopped = False
        self._checker: int | None = None
        self._next_turn = self._next_rest = self._answering_until = 0.0
        self._aside: Snapshot | None = None
        self._kept: dict[object, object] = {}
        self._state: State | None = None
        self._notes: dict[str, str] = {}

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot; opens the target when that was not done yet, so for workers first.

        While the check builds tables, others get a snapshot beside it, which has what is built by then: they neither
        wait for the check nor find a table half built.
        """
        whole = self._open()
        if self._checker in (None, get_ident()):
            return whole
        if self._aside is None:
            self._aside = type(whole)(whole.target)
        whole.share_with(self._aside)
        return self._aside

    def _open(self) -> Snapshot:
        if self._snapshot is None:
            if self._opener is None:
                raise StoppedError
            with self.lock:
                if self._snapshot is None:
                    self._snapshot = self._opener()
        return self._snapshot

    @property
    def opened(self) -> Snapshot | None:
        """The snapshot when there is one already."""
        return self._snapshot

    def keep(self, key: object, build: Callable[[], T]) -> T:
        """What ``build`` gives, made once and kept while this snapshot is shown; for workers only."""
        with self.lock:
            if key not in self._kept:
                self._kept[key] = build()
            return self._kept[key]  # type: ignore[return-value]

    @property
    def is_checking(self) -> bool:
        """Whether a check is under way."""
        return self._checker is not None

    @property
    def is_early(self) -> bool:
        """Whether a check has yet to read what every screen is made of: struct pages, mms and VMAs."""
        if self._checker is None:
            return self.awaits_check
        return self._snapshot is None or not self._snapshot.has_basics()

    def wait_for_tables(self, is_cancelled: Callable[[], bool], *, counts: bool = False) -> None:
        """Let the check read those first, so that they are not read twice; for workers that hold no lock.

        Args:
            is_cancelled: Whether they are not wanted any more.
            counts: Whether the counts of all mappings are waited for, too.

        Raises:
            StoppedError: They are not wanted any more, or the interface is closed.
        """
        while self.is_early or (counts and self.is_checking and not (self._snapshot and self._snapshot.has_walked)):
            if self.closed or is_cancelled():
                raise StoppedError
            time.sleep(_MOMENT)

    def check(self) -> Report:
        """Open the target and run every rule; findings appear rule by rule. Others may use the snapshot meanwhile.

        Of a kernel that runs on they appear at the end, when they were there in several looks.

        Raises:
            StoppedError: By `stop`.
            FolioscopeError: The target cannot be opened or read.
        """
        from inspector.check.confirm import check_target  # noqa: PLC0415  (NumPy and drgn, after the first paint)

        self._stopped, self.failed = False, None
        self.note_progress("opening", 0, 1)
        self._checker = get_ident()
        self.awaits_check = False
        try:
            with self.lock:
                whole = self._open()
                memory = whole.layout.memory
                memory.on_read = whole.between_pieces = self._between_steps
                try:
                    report = check_target(whole, progress=self.note_progress, found=self._found)
                finally:
                    memory.on_read = whole.between_pieces = None
                self.report, self.findings = report, list(report.findings)
        except Exception as error:
            self.failed = error
            raise
        finally:
            self._checker = self._aside = None
            self.doing = None
            self.generation += 1
        return report

    def answer(self) -> None:
        """A key was pressed: the check rests for a moment, for both would run half as fast beside each other."""
        self._answering_until = time.monotonic() + _COURTESY

    def _rest(self) -> None:
        """Do nothing while a key is answered."""
        began = now = time.monotonic()
        if began < self._next_rest:
            return
        while now < self._answering_until and not self.closed:
            time.sleep(_INSTANT)
            now = time.monotonic()
        # As in `_between_steps`: a key that is held down does not stop the check.
        self._next_rest = now + (now - began)

    def _between_steps(self, *_read: object) -> None:
        """Let others have a turn inside a long step of the check, once the tables are there that all need.

        Called behind each read and before each piece of a table.

        Raises:
            StoppedError: The interface is closed.
        """
        if self.closed:
            raise StoppedError
        if self._checker != get_ident():
            return
        if self._answering_until:
            self._rest()
        if time.monotonic() < self._next_turn or self.is_early:
            return
        began = time.monotonic()
        self.lock.give_way()
        now = time.monotonic()
        # As long as the others took, the check goes on alone: it comes to its end whatever is asked meanwhile.
        self._next_turn = now + max(now - began, _MOMENT)

    def _found(self, findings: list[Finding]) -> None:
        self.findings = findings
        self.generation += 1

    def note_progress(self, what: str, done: int, steps: int) -> None:
        """Progress of the check; lets others have a turn.

        Raises:
            StoppedError: By `stop`, or the interface is closed.
        """
        if self._stopped or self.closed:
            raise StoppedError
        self.doing = (what, done, steps)
        if self._snapshot is not None:
            self.lock.give_way()

    def stop(self) -> None:
        """Give up the check under way at its next step; what was found stays."""
        self._stopped = self.doing is not None

    def refresh(self, places: Sequence[Place]) -> list[Place | None]:
        """Forget all tables, so that the target is read again; for workers.

        Args:
            places: Known ones; rows of tables mean other things afterwards.

        Returns:
            The same places in the new tables; None for what is gone.
        """
        from inspector.snapshot import Snapshot  # noqa: PLC0415

        with self.lock:
            old = self._open()
            self._snapshot = Snapshot(old.target)
            self._kept.clear()
            self.before, self.report = self.report or self.before, None
            self.findings = []
            self.generation += 1
            self.refreshes += 1
            return [carry(place, old, self._snapshot) for place in places]

    @property
    def is_live(self) -> bool:
        """Whether the kernel runs on while it is read."""
        return self._snapshot is not None and self._snapshot.target.is_live

    @property
    def name(self) -> str:
        """Of the target, short."""
        if self._snapshot is None:
            return "folioscope"
        target = self._snapshot.target
        return clean(target.path).rsplit("/", 1)[-1] if target.kind in ("core", "kdump") else clean(target.path)

    def bound(self, place: Place) -> dict[str, tuple[str, int]]:
        """The object that a place is about, for a prompt: by name, the type that it points to and its address."""
        s = self.snapshot
        match place:
            case MmPlace(mm_idx):
                return {"mm": ("struct mm_struct", int(s.mms.addr[mm_idx]))}
            case VmaPlace(mm_idx, vma_idx):
                found = {"mm": ("struct mm_struct", int(s.mms.addr[mm_idx]))}
                return found | {"vma": ("struct vm_area_struct", int(s.vmas.addr[vma_idx]))}
            case FolioPlace(pfn) | RmapPlace(pfn):
                page = s.layout.memmap.page_addr(pfn)
                head = s.pages.head_row[s.layout.memmap.row(pfn)] if s.layout.memmap.row(pfn) >= 0 else -1
                found = {"page": ("struct page", page)}
                pages = s.pages.memmap
                return found | ({"folio": ("struct folio", pages.page_addr(pages.pfn(int(head))))} if head >= 0 else {})
            case AnonVmaPlace(addr):
                return {"anon_vma": ("struct anon_vma", addr)}
            case FilePlace(addr):
                return {"mapping": ("struct address_space", addr)}
            case _:
                return {}

    def prompt(self, bound: dict[str, tuple[str, int]]) -> None:
        """Drgn's prompt on the target, until its user leaves it."""
        from inspector.target.prompt import open_prompt  # noqa: PLC0415  (drgn's command line, when asked for)

        open_prompt(self.snapshot.target, bound)

    def remember(self) -> State | None:
        """What is remembered of this dump; None of kernels that run on. Marks of earlier runs are taken up."""
        if self._state is None and self._snapshot is not None and self._snapshot.target.kind in ("core", "kdump"):
            name = dump_name(self._snapshot.target.path)
            if name:
                self._state = State(name)
                self.seen |= set(self._state.texts("seen"))
        return self._state

    def toggle_seen(self, finding: Finding) -> None:
        """Mark as seen, or take the mark away; kept for the next run."""
        state = self.remember()
        self.seen ^= {finding.key}
        if state is not None:
            state.keep("seen", sorted(self.seen))
        self.generation += 1

    def went_to(self, place: Place) -> None:
        """Remember a place for the jump dialog of the next run, the last one first."""
        state = self.remember()
        words = words_of(self, place) if state is not None and state.is_kept else ""
        if state is not None and words:
            state.keep("places", list(dict.fromkeys([words, *state.texts("places")]))[:KEPT])

    def places_kept(self) -> list[tuple[Place, str]]:
        """Places of this and earlier runs, the last one first, with what they are called."""
        state = self.remember()
        kept = state.texts("places")[:KEPT] if state is not None and state.is_kept else []
        found = [place_of(words) for words in kept]
        return [one for one in found if one is not None]

    def has_seen(self, finding: Finding) -> bool:
        """Whether it is marked as seen."""
        self.remember()
        return finding.key in self.seen

    def note(self, key: str) -> str:
        """What was written about a finding, by `Finding.key`, or about the dump, by "". "" for nothing."""
        state = self.remember()
        return self._notes.get(key, "") if state is None else state.text(f"note {key}")

    def write_note(self, key: str, text: str) -> None:
        """Write it; kept for the next run, but for kernels that run on."""
        state = self.remember()
        if state is None:
            self._notes[key] = text
        else:
            state.keep(f"note {key}", text)
        self.generation += 1

    def is_new(self, finding: Finding) -> bool:
        """Whether a finding was not there before the last refresh."""
        return self.before is not None and finding.key not in {f.key for f in self.before.findings}

    def findings_about(self, first_pfn: int, nr: int) -> list[tuple[int, Finding]]:
        """Findings whose subject is one of some pages, with their places in the report."""
        inside = range(first_pfn, first_pfn + nr)
        return [(i, f) for i, f in enumerate(self.findings) if f.subject.pfn is not None and f.subject.pfn in inside]

    def process(self, mm_idx: int) -> str:
        """Whose address space it is, in words."""
        mms = self.snapshot.mms
        pid = int(mms.pid[mm_idx])
        return f"{pid} {clean_bytes(bytes(mms.comm[mm_idx]))}" if pid >= 0 else f"mm {int(mms.addr[mm_idx]):#x}"

    def rows_of_place(self, place: UserPlace) -> Place | None:
        """The same place by its rows; None when there is no such process. For workers: it needs all mms and VMAs."""
        from inspector.places.processes import find_mm  # noqa: PLC0415
        from inspector.walk.lookup import find_vma  # noqa: PLC0415  (NumPy and drgn, after the first paint)

        with self.lock:
            s = self.snapshot
            mm = _row(s.mms.addr, place.mm)
            if mm < 0:
                with suppress(FolioscopeError):
                    mm = find_mm(s, place.mm)
            if mm < 0 or place.va is None:
                return MmPlace(mm) if mm >= 0 else None
            vma = find_vma(s.vmas, mm, place.va)
            return VmaPlace(mm, vma, place.va) if vma >= 0 else MmPlace(mm)

    def crumb(self, place: Place) -> str:
        """A place's short name for the path shown on top."""
        match place:
            case MmPlace(mm_idx):
                return self.process(mm_idx)
            case FilePlace(addr) if self.file_names.get(addr):
                return f"file {self.file_names[addr]}"
            case VmaPlace(_, vma_idx):
                return f"vma {int(self.snapshot.vmas.start[vma_idx]):#x}"
            case _:
                return place.title

    def command(self, place: Place) -> str:
        """The command that shows the same on the command line; "" when there is none."""
        match place:
            case MmPlace(mm_idx):
                words = f"vmas {self._pid(mm_idx)}"
            case VmaPlace(mm_idx, vma_idx, va):
                start = int(self.snapshot.vmas.start[vma_idx])
                words = f"va {self._pid(mm_idx)} {start if va is None else va:#x}"
            case _:
                words = place.command
        return f"folioscope {self.snapshot.target.options} {words}" if words else ""

    def _pid(self, mm_idx: int) -> str:
        mms = self.snapshot.mms
        pid = int(mms.pid[mm_idx])
        return str(pid) if pid >= 0 else f"{int(mms.addr[mm_idx]):#x}"


def carry(place: Place, old: Snapshot, new: Snapshot) -> Place | None:
    """A place of one snapshot in another of the same target; None when the thing is gone."""
    if not isinstance(place, (MmPlace, VmaPlace)):
        return place
    mm = _same(old.mms.addr, place.mm_idx, new.mms.addr)
    if mm < 0 or isinstance(place, MmPlace):
        return MmPlace(mm) if mm >= 0 else None
    vma = _same(old.vmas.addr, place.vma_idx, new.vmas.addr)
    return VmaPlace(mm, vma, place.va) if vma >= 0 and int(new.vmas.mm_idx[vma]) == mm else None


def _same(old: U64, row: int, new: U64) -> int:
    """Row of the same address in another column, -1 for none."""
    return _row(new, int(old[row]))


def _row(column: U64, address: int) -> int:
    """Row of an address, -1 for none."""
    found = (column == address).nonzero()[0]
    return int(found[0]) if len(found) else -1
