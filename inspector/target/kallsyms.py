"""The kernel's own symbol table, read out of its memory in bulk."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping

import drgn
import numpy as np

from inspector.columns import I32, I64, U8, U32, U64
from inspector.errors import TargetError
from inspector.records import cached_property, dataclass

Read = Callable[[int, int], bytes]
"""Bytes at a kernel virtual address; raises TargetError when they cannot be read."""

_MAX_SYMBOLS = 1 << 24
"""More symbols than any kernel has: a larger number is damage and must not size a buffer."""

_MAX_NAMES = 1 << 28
"""Bytes of compressed names at most, for the same reason."""

_MARKED = 256
"""Names from one marker to the next (kernel/kallsyms.c, get_symbol_offset())."""

_MAX_PADDING = 16
"""Bytes between tables at most, with one more than the longest alignment of both ends."""

_PIECE = 1 << 13
"""Names whose letters are summed at once: some hundred kilobytes."""

_MAX_SPAN = 64 << 20
"""A gap this long behind a symbol is a hole in the address space, not its size."""

_KERNEL_HALF = 1 << 63
"""No kernel address is below."""

_NEEDED = ("kallsyms_names", "kallsyms_num_syms", "kallsyms_token_table", "kallsyms_token_index")

_DAMAGED = "Give the kernel's vmlinux with -s"


@dataclass(frozen=True)
class NameIndex:
    """Where each name is among the compressed ones, and by what it is found; one row a symbol.

    Attributes:
        starts, ends: int32; where its tokens begin and end.
        hashes: uint32; the sum of the values of its letters, without the type.
        kinds: uint8; its nm(1) type.
    """

    starts: I32
    ends: I32
    hashes: U32
    kinds: U8


Indexer = Callable[[bytes, list[bytes], int], NameIndex]
"""What `index_names` is."""


def index_names(blob: bytes, tokens: list[bytes], count: int) -> NameIndex:
    """The index of compressed names; arguments as for `Kallsyms`.

    Raises:
        TargetError: The names end before the last symbol.
    """
    starts, ends = _bounds(blob, count)
    codes: U8 = np.frombuffer(blob, np.uint8)
    kinds: U8 = np.array([t[0] if t else 0 for t in tokens], np.uint8)[codes[starts]]
    sums = np.array([_letter_sum(t) for t in tokens], np.uint32)
    return NameIndex(starts, ends, _sums(sums, codes, starts, ends) - _VALUES[kinds], kinds)


class Kallsyms:
    """Every symbol of the kernel image, names still compressed.

    A name is found without expanding the others: each symbol carries a hash that is the sum of a value for
    each letter, so it can be summed token by token over the compressed names; only the few symbols whose
    hash fits are expanded and compared. Layout: scripts/kallsyms.c, kernel/kallsyms.c
    kallsyms_expand_symbol() and kallsyms_sym_address().

    Args:
        blob: ``kallsyms_names``: for each symbol a length (two bytes when bit 7 of the first is set) and
            that many token numbers.
        tokens: The 256 tokens; the first letter of an expanded name is the symbol's nm(1) type.
        count: How many symbols there are.
        index: What `index_names` gives for them, where that is known.

    Raises:
        TargetError: The names end before the last symbol.
    """

    def __init__(
        self, blob: bytes | memoryview, tokens: list[bytes], count: int, index: NameIndex | None = None
    ) -> None:
        self._blob = blob
        self._tokens = tokens
        self.index = index or index_names(bytes(blob), tokens, count)
        self._starts, self._ends = self.index.starts, self.index.ends
        self._hashes, self._kinds = self.index.hashes, self.index.kinds
        self.addresses: U64 = np.zeros(count, np.uint64)
        """Address of each symbol, in the order of the table."""

    def __len__(self) -> int:
        return len(self._starts)

    @classmethod
    def read(cls, read: Read, vmcoreinfo: Mapping[str, str], index: Indexer | None = None) -> Kallsyms:
        """The table of the kernel that ``read`` reads, found with the addresses in VMCOREINFO.

        Args:
            read: Reads kernel memory.
            vmcoreinfo: The parsed VMCOREINFO; from 6.0 on it has the table's address
                (kernel/vmcore_info.c, crash_save_vmcoreinfo_init()).
            index: Gives what `index_names` does.

        Raises:
            TargetError: VMCOREINFO lacks it, or the table cannot be read or is damaged.
        """
        known = {n: _hex(v) for n, v in _symbols_of(vmcoreinfo)}
        if not all(n in known for n in _NEEDED) or not {"kallsyms_offsets", "kallsyms_addresses"} & known.keys():
            raise TargetError("VMCOREINFO lacks the address of the symbol table", "VMCOREINFO", _DAMAGED)
        count = int.from_bytes(read(known["kallsyms_num_syms"], 4), "little")
        if not 0 < count <= _MAX_SYMBOLS:
            raise TargetError(f"the symbol table is damaged ({count} symbols)", "kallsyms_num_syms", _DAMAGED)
        tokens = _read_tokens(read, known["kallsyms_token_table"], known["kallsyms_token_index"])
        names = _read_names(read, known, count)
        table = cls(names, tokens, count, (index or index_names)(names, tokens, count))
        table._locate(read, known, count)
        return table

    def _locate(self, read: Read, known: Mapping[str, int], count: int) -> None:
        """Give each symbol its address, in the encoding that agrees with the addresses VMCOREINFO states."""
        stated = {n: a for n, a in known.items() if not n.startswith("kallsyms_")}
        best, best_hits = None, 0
        for addresses in _encodings(read, known, count):
            self.addresses = addresses
            hits = sum(a in addresses[self._find(n)] for n, a in stated.items())
            if hits > best_hits:
                best, best_hits = addresses, hits
        if best is None:
            raise TargetError("the symbol table contradicts VMCOREINFO", "kallsyms_offsets", _DAMAGED)
        self.addresses = best

    def name(self, index: int) -> str:
        """Name of the symbol at ``index``."""
        return self._expand(index)[1:].decode("ascii", "replace")

    def kind(self, index: int) -> str:
        """Its nm(1) type letter, upper case when global."""
        return chr(self._kinds[index])

    def _expand(self, index: int) -> bytes:
        codes = self._blob[int(self._starts[index]) : int(self._ends[index])]
        return b"".join([self._tokens[c] for c in codes])

    def _find(self, name: str) -> I64:
        """Indexes of all symbols of that name, global ones first."""
        raw = name.encode("utf-8", "surrogateescape")
        same = np.flatnonzero(self._hashes == _letter_sum(raw)).tolist()
        hits = [i for i in same if self._expand(i)[1:] == raw]
        hits.sort(key=lambda i: not self.kind(i).isupper())
        return np.array(hits, np.int64)

    def all(self, name: str) -> list[int]:
        """Addresses of all symbols of that name, global ones first."""
        found: list[int] = self.addresses[self._find(name)].tolist()
        return found

    def address(self, name: str) -> int | None:
        """Address of the symbol of that name: the global one, else the only one.

        None when there is none; also when several files have a static one of that name, because any choice
        between them would be a guess.
        """
        found = self._find(name)
        addresses = self.addresses[found]
        if not len(found) or (not self.kind(found[0]).isupper() and (addresses != addresses[0]).any()):
            return None
        return int(addresses[0])

    def locate(self, name: str) -> tuple[int, int] | None:
        """Address and size of the symbol of that name; None when there is none."""
        address = self.address(name)
        return None if address is None else (address, self._size(address))

    def label(self, address: int) -> str | None:
        """``name`` or ``name+0x10`` of the symbol that holds ``address``, None when none does."""
        held = self.at(address)
        if held is None:
            return None
        offset = address - int(self.addresses[held])
        return f"{self.name(held)}+{offset:#x}" if offset else self.name(held)

    @cached_property
    def _by_address(self) -> tuple[I64, U64]:
        order = np.argsort(self.addresses, kind="stable")
        return order, self.addresses[order]

    def _size(self, address: int) -> int:
        """Bytes up to the next symbol at a higher address; 0 when a hole follows."""
        ordered = self._by_address[1]
        at = int(np.searchsorted(ordered, np.uint64(address), "right"))
        span = int(ordered[at]) - address if at < len(ordered) else 0
        return span if span < _MAX_SPAN else 0

    def at(self, address: int) -> int | None:
        """Index of the symbol that holds ``address``, a global one when several begin there; None in a hole."""
        if not _KERNEL_HALF <= address < 1 << 64:
            # Per-CPU variables of older kernels have small numbers for addresses; nothing is at a small address.
            return None
        order, ordered = self._by_address
        end = int(np.searchsorted(ordered, np.uint64(address), "right"))
        if end == 0:
            return None
        start = int(ordered[end - 1])
        if address - start >= max(self._size(start), 1):
            return None
        begin = int(np.searchsorted(ordered, np.uint64(start), "left"))
        same: list[int] = order[begin:end].tolist()
        return min(same, key=lambda i: not self.kind(i).isupper())

    def symbol(self, index: int) -> drgn.Symbol:
        """The symbol at ``index`` as drgn wants it; the table stores no size, the next symbol ends this one."""
        address = int(self.addresses[index])
        return drgn.Symbol(self.name(index), address, self._size(address), *_elf_words(self.kind(index)))

    def finder(self, _prog: drgn.Program, name: str | None, address: int | None, one: bool) -> list[drgn.Symbol]:
        """Answer drgn's symbol look-ups (`drgn.Program.register_symbol_finder`)."""
        indexes: Iterable[int]
        if address is not None:
            held = self.at(address)
            indexes = [] if held is None or (name is not None and self.name(held) != name) else [held]
        elif name is not None:
            indexes = self._find(name).tolist()
        else:
            indexes = range(len(self))
        found = [self.symbol(i) for i in indexes]
        return found[:1] if one else found


def _letter_values() -> U32:
    """A fixed, irregular number for each letter: names with other sums differ (those with the same are compared)."""
    mixed = np.arange(1, 257, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed >> np.uint64(32)).astype(np.uint32)


_VALUES = _letter_values()


def _letter_sum(name: bytes) -> np.uint32:
    return np.uint32(int(_VALUES[np.frombuffer(name, np.uint8)].sum()) & 0xFFFFFFFF)


def _sums(values: U32, codes: U8, starts: I32, ends: I32) -> U32:
    """The sum of the values of the codes in each of the ranges, which ascend and do not touch."""
    sums = np.empty(len(starts), np.uint32)
    for first in range(0, len(starts), _PIECE):
        rows = slice(first, first + _PIECE)
        begin, end = int(starts[first]), int(ends[rows][-1])
        edges = np.column_stack((starts[rows], ends[rows])).ravel() - begin
        # What is summed between two ranges is left out by [::2]; the last one needs no edge behind it.
        sums[rows] = np.add.reduceat(values[codes[begin:end]], edges[:-1], dtype=np.uint32)[::2]
    return sums


def _symbols_of(vmcoreinfo: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    return ((k[7:-1], v) for k, v in vmcoreinfo.items() if k.startswith("SYMBOL(") and k.endswith(")"))


def _hex(text: str) -> int:
    try:
        value = int(text, 16)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise TargetError("VMCOREINFO is damaged", f"{text!r} is no address", _DAMAGED)
    return value


def _bounds(blob: bytes, count: int) -> tuple[I32, I32]:
    """Where the tokens of each name begin and end.

    Each name's length gives the next one's place. Behind the names the kernel keeps the place of every 256th
    (``kallsyms_markers``): from there as many walks go on at once, and each must end where the next one begins.
    Without them, or where they do not fit, one walk goes through all names.

    Raises:
        TargetError: The names run past the end, or one is empty.
    """
    begins, end = _bounds_by_markers(blob, count) or _bounds_one_by_one(blob, count)
    if end > len(blob):
        raise TargetError("the symbol table is damaged (names end too early)", "kallsyms_names", _DAMAGED)
    # In front of each name's tokens is its length, in one byte or two.
    firsts, ends = begins, np.append(begins[1:], np.int32(end))
    codes: U8 = np.frombuffer(blob, np.uint8)
    starts = firsts + 1 + (codes[firsts] >> 7)
    if (starts >= ends).any():
        raise TargetError("the symbol table is damaged (names end too early)", "kallsyms_names", _DAMAGED)
    return starts, ends


def _bounds_by_markers(blob: bytes, count: int) -> tuple[I32, int] | None:
    """Place of each name and of the end by the markers; None where there are none that fit."""
    groups = -(-count // _MARKED)
    # 6.1 has kallsyms_seqs_of_names between the markers and what comes next, three bytes a symbol.
    for behind in (0, 3 * count):
        place = next(_marker_places(blob, groups, behind), None)
        if place is not None:
            break
    else:
        return None
    markers = np.frombuffer(blob, "<u4", groups, place).astype(np.int32)
    codes: U8 = np.frombuffer(blob, np.uint8)
    places = np.empty((_MARKED, groups), np.int32)
    at = markers
    for row in places:
        row[:] = at
        length = codes[at].astype(np.int32)
        is_long = length >= 0x80
        if is_long.any():
            length[is_long] = (length[is_long] & 0x7F | codes[at[is_long] + 1].astype(np.int32) << 7) + 1
        # Behind the names there are markers: a walk that gets there stays there.
        at = np.minimum(at + length + 1, place + 1)
    if (at[:-1] != markers[1:]).any():
        return None
    begins = places.T.ravel()
    # The last group holds fewer names; its walk went on behind them.
    end = int(begins[count]) if count < len(begins) else int(at[-1])
    return (begins[:count].copy(), end) if end <= place else None


def _marker_places(blob: bytes, groups: int, behind: int) -> Iterator[int]:
    """Where so many markers can be, with ``behind`` bytes and what alignment adds after them."""
    for padding in range(_MAX_PADDING):
        place = len(blob) - behind - padding - 4 * groups
        if place > 0 and not any(blob[place : place + 4]):
            markers = np.frombuffer(blob, "<u4", groups, place)
            if (markers[:-1] < markers[1:]).all() and markers[-1] < place:
                yield place


def _bounds_one_by_one(blob: bytes, count: int) -> tuple[I32, int]:
    """The same from name to name; an end behind the blob where it has fewer."""
    places = array("i")
    at = 0
    try:
        for _ in range(count):
            places.append(at)
            length = blob[at]
            if length & 0x80:
                # Long names since 6.1: seven bits, then the rest (scripts/kallsyms.c write_src()).
                length = ((length & 0x7F) | (blob[at + 1] << 7)) + 1
            at += length + 1
    except IndexError:
        at = len(blob) + 1
    return np.frombuffer(places, np.int32), at


def _read_tokens(read: Read, table: int, index: int) -> list[bytes]:
    """The 256 tokens, by number (kallsyms_token_table, kallsyms_token_index)."""
    starts = np.frombuffer(read(index, 512), "<u2").tolist()
    # The index lies right behind the table, which is about a kilobyte.
    room = index - table if 0 < index - table <= 1 << 16 else max(starts) + 64
    text = read(table, room)
    if max(starts) >= len(text):
        raise TargetError("the symbol table is damaged (tokens)", "kallsyms_token_index", _DAMAGED)
    return [text[s:].split(b"\0", 1)[0] for s in starts]


def _read_names(read: Read, known: Mapping[str, int], count: int) -> bytes:
    """``kallsyms_names``; its size is stored nowhere, so up to what follows, else as much as can be needed."""
    names = known["kallsyms_names"]
    behind = [a - names for n, a in known.items() if n.startswith("kallsyms_") and a > names]
    if behind:
        return read(names, min([*behind, _MAX_NAMES]))
    blob = bytearray()
    while len(blob) < min(count * 512, _MAX_NAMES):
        try:
            blob += read(names + len(blob), 1 << 16)
        except TargetError:
            break
    return bytes(blob)


def _encodings(read: Read, known: Mapping[str, int], count: int) -> Iterable[U64]:
    """The addresses under each encoding a kernel may use, most likely first."""
    if "kallsyms_offsets" not in known:
        yield np.frombuffer(read(known["kallsyms_addresses"], 8 * count), "<u8").astype(np.uint64)
        return
    place = known["kallsyms_offsets"]
    stored = np.frombuffer(read(place, 4 * count), "<i4").astype(np.int64)
    if "kallsyms_relative_base" not in known:
        # 7.x: each offset counts from its own place (kallsyms_sym_address(), offset_to_ptr()).
        yield (stored + np.arange(count, dtype=np.int64) * 4).view(np.uint64) + np.uint64(place)
        return
    base = np.uint64(int.from_bytes(read(known["kallsyms_relative_base"], 8), "little"))
    # CONFIG_KALLSYMS_ABSOLUTE_PERCPU (x86 up to 6.14): positive values are absolute, negative ones count down.
    below = (-stored - 1).view(np.uint64) + base
    yield np.where(stored >= 0, stored.view(np.uint64), below)
    yield (stored & 0xFFFFFFFF).view(np.uint64) + base


def _elf_words(kind: str) -> tuple[drgn.SymbolBinding, drgn.SymbolKind]:
    """Binding and kind that an nm(1) letter means."""
    lower = kind.lower()
    if lower in "vw":
        return drgn.SymbolBinding.WEAK, drgn.SymbolKind.OBJECT if lower == "v" else drgn.SymbolKind.FUNC
    binding = drgn.SymbolBinding.GLOBAL if kind.isupper() else drgn.SymbolBinding.LOCAL
    if lower == "t":
        return binding, drgn.SymbolKind.FUNC
    return binding, drgn.SymbolKind.OBJECT if lower in "bcdgrs" else drgn.SymbolKind.UNKNOWN
