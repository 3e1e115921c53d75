"""Open a vmcore, the running kernel or a QEMU guest, with types and symbols, and identify its kernel."""

from __future__ import annotations

import logging
import mmap
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import drgn

from inspector.columns import sorts_rightly
from inspector.errors import TargetError
from inspector.records import cached_property, dataclass
from inspector.target.btf import BtfTypes, open_btf
from inspector.target.corefile import (
    CoreFile,
    PagesAt,
    Segments,
    SymbolsFile,
    examine_core,
    examine_parts,
    examine_symbols,
    parse_vmcoreinfo,
)
from inspector.target.identity import Identity, identify
from inspector.target.kallsyms import Kallsyms, index_names
from inspector.target.offer import offer_of, own_program
from inspector.text import clean, size

if TYPE_CHECKING:
    from inspector.target.earlier import Earlier
    from inspector.target.qmp import Monitor, Pause
    from inspector.target.stored_pages import StoredPages

TargetKind = Literal["core", "kdump", "live", "qemu"]
Types = Literal["auto", "dwarf", "btf"]
TypesFrom = Literal["DWARF", "BTF"]

RAN_ON = "FOLIOSCOPE(ran-on)"
"""The line of VMCOREINFO by which a capture records that the kernel ran on while it was made."""

_KCORE = "/proc/kcore"

_LOW_HALF = 1 << 47
"""Addresses below belong to user space; kernel data is never there."""

_HIGH_HALF = (1 << 64) - _LOW_HALF
"""Addresses from here on are the kernel's."""

_PHYSICAL = 1 << 52
"""No machine has physical addresses beyond."""

_GIVE_SYMBOLS = "Give the kernel's vmlinux with -s"


class Symbols(Protocol):
    """A symbol table."""

    def address(self, name: str) -> int | None:
        """Address of the symbol of that name, None when there is none."""

    def label(self, address: int) -> str | None:
        """``name`` or ``name+0x10`` of the symbol that holds an address, None when none does."""


@dataclass(frozen=True)
class Target:
    """An opened kernel.

    Attributes:
        prog: Reads its memory and knows its types.
        kind: What it was opened from.
        path: The dump, ``/proc/kcore``, or the address of the QMP socket; of a dump in parts the first of them.
        types_from: What `prog` knows types from.
        symbols_from: Where `symbol` looks.
        vmcoreinfo: VMCOREINFO, parsed.
        symbols: The table behind `symbol`.
        notes: What was tried for types and symbols and why it was or was not used, in sentences.
        missing_bytes: Memory that a truncated dump promises but does not hold; reading it faults.
        prstatus: The dump's NT_PRSTATUS notes, one a CPU; of a guest that is stopped, its registers in the same form.
        ram: Physical memory that the dump is about, [start, end) ascending; empty where its file does not say.
        monitor: Of a QEMU guest, what stops it and lets it run on.
        is_paused: Whether the guest is stopped, so that it is read as a dump is.
        more_parts: Of a dump in parts all but the first of them, in the order of the page frames.
    """

    prog: drgn.Program
    kind: TargetKind
    path: str
    types_from: TypesFrom
    symbols_from: str
    vmcoreinfo: dict[str, str]
    symbols: Symbols = field(repr=False)
    notes: list[str] = field(default_factory=list)
    missing_bytes: int = 0
    prstatus: tuple[bytes, ...] = ()
    ram: tuple[tuple[int, int], ...] = ()
    monitor: Monitor | None = field(default=None, repr=False)
    is_paused: bool = False
    more_parts: tuple[str, ...] = ()

    def paused(self, pause: Pause) -> Target:
        """The same guest, stopped."""
        return replace(self, prstatus=pause.registers, is_paused=True)

    @property
    def is_live(self) -> bool:
        """Whether the kernel runs on while it is read."""
        return self.kind in ("live", "qemu") and not self.is_paused

    @property
    def has_one_reader(self) -> bool:
        """Whether no other process may read it beside this one: it runs on, or answers through one connection."""
        return self.kind in ("live", "qemu")

    @property
    def is_packed(self) -> bool:
        """Whether its memory is unpacked as it is read, which takes longer than what is done with it."""
        return self.kind == "kdump"

    @property
    def ran_on(self) -> bool:
        """Whether the kernel ran on while what is read here was taken: it is live, or captured from a live one."""
        return self.is_live or RAN_ON in self.vmcoreinfo

    @property
    def options(self) -> str:
        """The options of the command line that open it again, but for those about types and symbols."""
        path = shlex.quote(clean(self.path))
        if self.kind in ("core", "kdump"):
            return " ".join(f"-c {shlex.quote(clean(file))}" for file in (self.path, *self.more_parts))
        return {"qemu": f"--qemu {path}"}.get(self.kind, "-k")

    def symbol(self, name: str) -> int | None:
        """Address of a kernel symbol; of a per-CPU variable, what has to be added to a CPU's offset."""
        return self.symbols.address(name)

    def symbol_name(self, address: int) -> str | None:
        """``name`` or ``name+0x10`` of the symbol that holds an address, None when none does."""
        return self.symbols.label(address)

    @cached_property
    def identity(self) -> Identity:
        """Which kernel this is; found out when first asked for, fields None where it is not known."""
        return identify(self)


class _ElfSymbols:
    """The symbol tables of the ELF files that drgn loaded."""

    def __init__(self, prog: drgn.Program) -> None:
        self._prog = prog

    def address(self, name: str) -> int | None:
        try:
            return int(self._prog.symbol(name).address)
        except LookupError:
            return None

    def label(self, address: int) -> str | None:
        try:
            found = self._prog.symbol(address)
        except (LookupError, OverflowError):
            return None
        return found.name if found.address == address else f"{found.name}+{address - found.address:#x}"


@dataclass(frozen=True)
class _Opening:
    """A program whose memory can be read, before it has types and symbols; fields as in `Target`."""

    prog: drgn.Program
    kind: TargetKind
    path: str
    vmcoreinfo: bytes = b""
    missing_bytes: int = 0
    notes: list[str] = field(default_factory=list)
    prstatus: tuple[bytes, ...] = ()
    earlier: Earlier | None = None
    ram: tuple[tuple[int, int], ...] = ()
    more_parts: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """What to call it in a message."""
        return "dump" if self.kind in ("core", "kdump") else "kernel"


def open_core(
    path: str | Sequence[str], symbols: Sequence[str] = (), *, types: Types = "auto", cache: bool = False
) -> Target:
    """Open a vmcore: an ELF core or a kdump-compressed file.

    Args:
        path: The dump; all parts of it, in any order, where ``makedumpfile --split`` wrote them.
        symbols: A vmlinux and modules with DWARF; they must be those of the dump.
        types: Where types are to come from: "auto" takes DWARF that is given or found on this machine,
            else the BTF inside the dump.
        cache: Whether what takes time to find out about symbols and types is taken from the user's cache directory
            and kept there (`inspector.disk_cache`).

    Raises:
        TargetError: The dump cannot be opened, or types or symbols cannot be had.
    """
    if not isinstance(path, (str, os.PathLike)):
        if len(path) > 1:
            return _open_parts([os.fspath(file) for file in path], symbols, types)
        (path,) = path
    path = os.fspath(path)
    earlier = _earlier(path) if cache else None
    core = examine_core(path, is_whole=earlier is not None and earlier.is_known)
    # libkdumpfile does not know the machine of QEMU's kdump files; any other than x86-64 was refused already.
    prog = own_program(drgn.Platform(drgn.Architecture.X86_64) if core.format == "kdump" else None)
    try:
        with _without_advice(core):
            prog.set_core_dump(path)
    except Exception as error:  # drgn passes libelf's and libkdumpfile's errors on as bare Exception
        todo = "It may be truncated or damaged: copy it again"
        raise TargetError(f"the dump cannot be opened ({_reason(error)})", path, todo) from error
    if core.pages is not None:
        _unpack_once(prog, core, _stored_pages(path, core.pages))
    notes = _leave_out(prog, core.segments) if core.segments is not None else []
    if core.missing_bytes:
        share = 100 * core.missing_bytes / max(core.memory_bytes, 1)
        lost = f"{size(core.missing_bytes)} of {size(core.memory_bytes)} of memory ({share:.2g}%)"
        notes.append(f"The dump is truncated: {lost} are missing at its end.")
    ram = core.segments.ram if core.segments is not None else ()
    opening = _Opening(
        prog, core.format, path, core.vmcoreinfo, core.missing_bytes, notes, core.prstatus, earlier=earlier, ram=ram
    )
    return _complete(opening, symbols, types)


@contextmanager
def _without_advice(core: CoreFile) -> Iterator[None]:
    """Keep libkdumpfile from warning of every flattened stream that it reads."""
    log = logging.getLogger("drgn")
    level = log.level
    if core.format == "kdump" and core.pages is None and log.getEffectiveLevel() == logging.WARNING:
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _open_parts(paths: list[str], symbols: Sequence[str], types: Types) -> Target:
    """Open a dump in parts, of which drgn takes one file at a time: all of its memory is read by us."""
    from inspector.target.stored_pages import Stored, StoredPages  # noqa: PLC0415  (for compressed dumps only)

    found = examine_parts(paths)
    first, *more = found
    core, prog = found[first], own_program(drgn.Platform(drgn.Architecture.X86_64))
    try:
        prog.set_linux_kernel_custom(core.vmcoreinfo, False)
    except Exception as error:  # drgn says only here what it misses in VMCOREINFO
        todo = "One of its parts may be damaged: copy them again"
        raise TargetError(f"the dump cannot be opened ({_reason(error)})", first, todo) from error
    stored = StoredPages(*(Stored(path, part.pages, _Unreadable) for path, part in found.items() if part.pages))
    _unpack_once(prog, core, stored)
    notes = [f"The dump is in {len(found)} parts: {', '.join(found)}."]
    opening = _Opening(prog, core.format, first, core.vmcoreinfo, 0, notes, core.prstatus, more_parts=tuple(more))
    return _complete(opening, symbols, types)


class _Unreadable:
    """In the place of what reads pages that cannot be unpacked here: nothing does, of a part."""

    def read(self, address: int, _size: int, _physical: bool, /) -> bytes:
        """Say so."""
        raise drgn.FaultError("page is damaged, or compressed in a way that is not known here", address)


def _leave_out(prog: drgn.Program, segments: Segments) -> list[str]:
    """Make the pages that an ELF dump names and does not hold fault, which drgn reads as zeros.

    Returns:
        What there is to note about it.
    """

    def fault(address: int, _count: int, _offset: int, _physical: bool) -> bytes:
        raise drgn.FaultError("page is not in the dump", address)

    for start, length, physical in segments.left_out:
        prog.add_memory_segment(start, length, fault, physical)
    lost = sum(length for _, length, physical in segments.left_out if physical)
    return [f"{size(lost)} of memory were left out when the dump was written, or are zero."] if lost else []


def _unpack_once(prog: drgn.Program, core: CoreFile, stored: StoredPages) -> None:
    """Have the memory of a kdump-compressed dump read by us instead of libkdumpfile, each page unpacked once.

    Virtual addresses are translated by drgn itself, in a program that has this memory and nothing else.
    """

    def translated(address: int, count: int, _offset: int, _physical: bool) -> bytes:
        try:
            return inner.read(address, count)
        except drgn.FaultError as error:
            # It names the physical address, or the one of a table.
            raise drgn.FaultError(str(error.args[0]), address) from None

    inner = own_program(prog.platform)
    inner.add_memory_segment(0, _PHYSICAL, stored.read, True)
    try:
        inner.set_linux_kernel_custom(core.vmcoreinfo, False)
    except Exception:  # noqa: BLE001  (drgn says only here what it misses in VMCOREINFO)
        return
    prog.add_memory_segment(0, _PHYSICAL, stored.read, True)
    prog.add_memory_segment(_HIGH_HALF, (1 << 64) - 1 - _HIGH_HALF, translated, False)


def _stored_pages(path: str, pages: PagesAt, *, is_read_once: bool = False) -> StoredPages:
    from inspector.target.stored_pages import Stored, StoredPages  # noqa: PLC0415  (for compressed dumps only)

    def open_other() -> drgn.Program:
        other = own_program()
        other.set_core_dump(path)
        return other

    return StoredPages(Stored(path, pages, open_other), is_read_once=is_read_once)


def open_pages(path: str) -> StoredPages:
    """The pages of a kdump-compressed dump for who reads each of them once.

    Raises:
        TargetError: It cannot be opened, or is no such dump.
    """
    core = examine_core(path)
    if core.pages is None:
        raise TargetError("this is no kdump-compressed dump", path, "Name another file")
    return _stored_pages(path, core.pages, is_read_once=True)


def open_live(symbols: Sequence[str] = (), *, types: Types = "auto") -> Target:
    """Open the running kernel through ``/proc/kcore``.

    Raises:
        TargetError: It is not there or may not be read, or types or symbols cannot be had.
    """
    if not Path(_KCORE).exists():
        raise TargetError("the running kernel has no core file", _KCORE, "It needs CONFIG_PROC_KCORE")
    try:
        Path(_KCORE).open("rb").close()
    except PermissionError:
        todo = "Run as root; a kernel locked down for confidentiality refuses even that"
        raise TargetError("the running kernel may not be read", _KCORE, todo) from None
    core, prog = examine_core(_KCORE), own_program()
    try:
        prog.set_kernel()
    except Exception as error:  # drgn passes libelf's errors on as bare Exception
        raise TargetError(f"the running kernel cannot be opened ({_reason(error)})", _KCORE, "Run as root") from error
    return _complete(_Opening(prog, "live", _KCORE, core.vmcoreinfo), symbols, types)


def open_qemu(address: str, symbols: Sequence[str] = (), *, types: Types = "auto") -> Target:
    """Open the kernel of a running QEMU guest.

    Args:
        address: Path of the guest's QMP socket, or host:port.
        symbols: As for `open_core`.
        types: As for `open_core`.

    Raises:
        TargetError: There is no QMP at that address, or types or symbols cannot be had.
    """
    from inspector.target.qmp import Monitor, qmp_socket  # noqa: PLC0415  (sockets, for guests only)

    prog = own_program()
    connection = qmp_socket(address)
    try:
        # drgn takes over the descriptor that it is given, even when it fails.
        prog.set_qemu_qmp(os.dup(connection.fileno()))
    except Exception as error:
        connection.close()
        todo = "It must be the QMP socket of a running guest without another client"
        reason = "it does not answer" if isinstance(error, BlockingIOError) else _reason(error)
        raise TargetError(f"the guest cannot be opened ({reason})", address, todo) from error
    target = _complete(_Opening(prog, "qemu", address), symbols, types)
    return replace(target, monitor=Monitor(connection, address))


def from_program(
    prog: drgn.Program | None = None, symbols: Sequence[str] = (), *, types: Types = "auto", vmcoreinfo: bytes = b""
) -> Target:
    """Use a program that is already open, such as that of a script run by drgn; types it lacks are added to it.

    Args as for `open_core`, and ``vmcoreinfo`` where it is at hand. Without a program it is the one that drgn runs
    the script for.

    Raises:
        TargetError: There is none, it is of no kernel, or types or symbols cannot be had.
    """
    if prog is None:
        try:
            prog = drgn.get_default_prog()
        except drgn.NoDefaultProgramError:
            raise TargetError("drgn has no program open", "", "Run the script with drgn, or use open_core()") from None
    path = str(prog.core_dump_path or "")
    kind: TargetKind = "core"
    prstatus: tuple[bytes, ...] = ()
    if prog.flags & drgn.ProgramFlags.IS_LIVE:
        kind = "live" if prog.flags & drgn.ProgramFlags.IS_LOCAL else "qemu"
    elif path:
        core = examine_core(path)
        kind, vmcoreinfo, prstatus = core.format, vmcoreinfo or core.vmcoreinfo, core.prstatus
    return _complete(_Opening(prog, kind, path, vmcoreinfo, prstatus=prstatus), symbols, types)


def _complete(opening: _Opening, symbols: Sequence[str], types: Types) -> Target:
    """Give an opened program its types and symbols."""
    if not sorts_rightly():
        todo = "Set NPY_DISABLE_CPU_FEATURES=X86_V3 in the environment; before NumPy 2.4 AVX2"
        raise TargetError("NumPy sorts wrongly on this processor, which may be an emulated one", "", todo)
    prog, path = opening.prog, opening.path
    _require_kernel(opening)
    if opening.kind in ("core", "kdump"):
        _fault_low_half(prog)
    info = _vmcoreinfo(opening)
    dwarf = _load_dwarf(opening, info, symbols, types)
    types_from: TypesFrom = "DWARF" if dwarf else "BTF"
    table, symbols_from = _symbol_table(opening, info, dwarf)
    if isinstance(table, Kallsyms) and not dwarf:
        offer = offer_of(prog)
        if "btf" not in prog.registered_type_finders() and not (offer and offer.found):
            _btf(opening, table).register()
            prog.register_symbol_finder("kallsyms", table.finder, enable_index=0)
        opening.notes.append("Types are from the BTF inside the kernel.")
    if opening.earlier is not None and isinstance(table, Kallsyms):
        opening.earlier.keep(table)
    rest = (opening.notes, opening.missing_bytes, opening.prstatus, opening.ram)
    target = Target(prog, opening.kind, path, types_from, symbols_from, info, table, *rest)
    return replace(target, more_parts=opening.more_parts) if opening.more_parts else target


def _earlier(path: str) -> Earlier | None:
    """What earlier openings found about a dump; None where nothing can be kept."""
    from inspector.target.earlier import Earlier, open_cache  # noqa: PLC0415  (only where a cache is wanted)

    cache = open_cache()
    return None if cache is None else Earlier(cache, path)


def _btf(opening: _Opening, table: Kallsyms) -> BtfTypes:
    """The types from the kernel's BTF."""
    earlier = opening.earlier
    if earlier is None:
        return open_btf(opening.prog, table.locate)
    known = earlier.types()
    if known is not None:
        return BtfTypes(opening.prog, known, table.locate)
    return open_btf(opening.prog, table.locate, parse=earlier.parse_types)


def _require_kernel(opening: _Opening) -> None:
    platform, path = opening.prog.platform, opening.path
    if not opening.prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        if opening.kind == "qemu":
            todo = "Start QEMU with -device vmcoreinfo and load qemu_fw_cfg in the guest"
            raise TargetError("the guest has no VMCOREINFO", path, todo)
        raise TargetError("the dump has no VMCOREINFO", path, "Name a vmcore of a kernel with CONFIG_VMCORE_INFO")
    if platform is None or platform.arch != drgn.Architecture.X86_64:
        name = platform.arch.name.lower() if platform is not None else "unknown"
        what = f"the kernel is of an architecture that is not supported ({name})"
        raise TargetError(what, path, "x86-64 only so far")


def _fault_low_half(prog: drgn.Program) -> None:
    """Make user-space addresses fault.

    QEMU writes all segments with virtual address 0, which would let a NULL pointer read physical memory.
    """

    def fault(address: int, _count: int, _offset: int, _physical: bool) -> bytes:
        raise drgn.FaultError("address is not the kernel's", address)

    prog.add_memory_segment(0, _LOW_HALF, fault, False)


def _vmcoreinfo(opening: _Opening) -> dict[str, str]:
    """VMCOREINFO, from the file where possible: to ask drgn for it settles the sign of ``char`` before BTF does."""
    try:
        raw = opening.vmcoreinfo or opening.prog["VMCOREINFO"].string_()
    except (LookupError, drgn.FaultError) as error:
        raise TargetError(
            f"the {opening.what} has no VMCOREINFO", opening.path, "Nothing else can replace it"
        ) from error
    return parse_vmcoreinfo(raw)


def _load_dwarf(opening: _Opening, info: dict[str, str], symbols: Sequence[str], types: Types) -> str:
    """Load what is given and, for "auto" and "dwarf", what this machine has.

    Returns:
        Path of the vmlinux whose DWARF was loaded; empty when types have to come from BTF.

    Raises:
        TargetError: A given file is not of this kernel, or DWARF was demanded and there is none.
    """
    prog, notes = opening.prog, opening.notes
    given = {path: examine_symbols(path) for path in map(os.fspath, symbols)}
    for path, file in given.items():
        if not file.is_module:
            _require_match(path, file, info)
    if types == "btf":
        notes += [f"{path} was not used: types from BTF were asked for." for path in given]
        return ""
    finders = ["standard"] + (["debuginfod"] if os.environ.get("DEBUGINFOD_URLS") else [])
    prog.set_enabled_debug_info_finders([f for f in finders if f in prog.registered_debug_info_finders()])
    try:
        kernel = next(iter(prog.loaded_modules()))[0]
        if given:
            prog.load_debug_info(list(given))
        if kernel.wants_debug_file():
            prog.load_module_debug_info(kernel)
    except (drgn.FaultError, OSError, StopIteration, LookupError, ValueError, drgn.MissingDebugInfoError) as error:
        raise TargetError(f"debug information cannot be loaded ({_reason(error)})", " ".join(given), "") from error
    _require_used(prog, given, kernel)
    found = kernel.debug_file_path if kernel.debug_file_status == drgn.ModuleFileStatus.HAVE else None
    if found:
        notes.append(f"Types are from the DWARF of {found}.")
        return str(found)
    if types == "dwarf":
        raise TargetError("no DWARF debug information for this kernel", info.get("OSRELEASE", ""), _GIVE_SYMBOLS)
    notes.append(f"This machine has no DWARF debug information for {info.get('OSRELEASE', 'this kernel')}.")
    return ""


def _require_match(path: str, file: SymbolsFile, info: dict[str, str]) -> None:
    """Refuse a vmlinux of another kernel: by build id, else by the release in its banner."""
    release, wanted = info.get("OSRELEASE", ""), info.get("BUILD-ID", "")
    if wanted and file.build_id:
        if wanted != file.build_id:
            todo = f"The dump is of {release}, build id {wanted}; the file has {file.build_id}"
            raise TargetError("the symbols are of another kernel", path, todo)
        return
    if release and not _holds(path, f"Linux version {release} ".encode()):
        raise TargetError("the symbols are of another kernel", path, f"The dump is of {release}")


def _holds(path: str, needle: bytes) -> bool:
    """Whether a file that is not empty contains ``needle``."""
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return view.find(needle) >= 0


def _require_used(prog: drgn.Program, given: dict[str, SymbolsFile], kernel: drgn.Module) -> None:
    """Refuse a given file that drgn found no use for: a module that is not loaded, or a vmlinux without DWARF."""
    used = {path for module in prog.modules() for path in (module.debug_file_path, module.loaded_file_path) if path}
    for path, file in given.items():
        if any(Path(path).samefile(other) for other in used):
            continue
        if file.is_module:
            raise TargetError("the symbols are of no module loaded in this kernel", path, "Leave it out")
        if kernel.wants_debug_file():
            raise TargetError("the symbols file has no DWARF debug information", path, "Leave it out to use BTF")


def _symbol_table(opening: _Opening, info: dict[str, str], dwarf: str) -> tuple[Symbols, str]:
    """The kernel's own table, which is the quickest; where that cannot be had, vmlinux's."""

    def read(address: int, size: int) -> bytes:
        try:
            return bytes(opening.prog.read(address, size))
        except drgn.FaultError as error:
            if opening.missing_bytes:
                what = "the dump is truncated and lacks the kernel's own data"
                raise TargetError(what, opening.path, "Copy it again") from error
            raise TargetError("the symbol table cannot be read", f"{error.address:#x}", _GIVE_SYMBOLS) from error

    earlier, offer = opening.earlier, offer_of(opening.prog)
    try:
        table = earlier.symbols() if earlier is not None else None
        if table is None and earlier is None and offer and offer.found:
            table = offer.found[0]
        if table is None:
            table = Kallsyms.read(read, info, earlier.index_names if earlier is not None else index_names)
        return table, f"kallsyms in the {opening.what}"
    except TargetError as error:
        if not dwarf:
            raise
        opening.notes.append(f"kallsyms was not used: {error.what}.")
        return _ElfSymbols(opening.prog), f"ELF symbol table of {dwarf}"


def _reason(error: BaseException) -> str:
    """The first line of an error, for the inside of a message of ours."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
