"""The page-table decoder that fits this kernel: levels, masks and the numbering of swap types."""

from __future__ import annotations

from inspector.arch.base import Arch
from inspector.arch.swapentry import NR_TYPES, SwapTypes, solve
from inspector.arch.x86_64 import X86_64
from inspector.errors import LayoutError, TargetError
from inspector.layout.offsets import Struct, enumerators
from inspector.memory import Memory
from inspector.target.target import Target


def probe_arch(target: Target, memory: Memory, info: dict[str, str], levels: int) -> Arch:
    """The decoder for the target's architecture.

    Raises:
        TargetError: The architecture is not supported.
        LayoutError: The numbering of swap types is not known.
    """
    machine = target.prog.platform.arch.name if target.prog.platform else "unknown"
    if machine != "X86_64":
        raise TargetError(
            f"the architecture {machine.lower()} is not supported", target.path, "Only x86-64 kernels can be inspected"
        )
    mask = target.symbol("physical_mask")
    physical = memory.read_u64(mask) if mask is not None else None
    page_flags = enumerators(target.prog, "enum pageflags")
    # The DAX bit went with 6.17, the saved dirty bit came with 6.6; neither bit had another use in between.
    devmap = "compound_info" not in _members(target) and not _has_wrapped_flags(target)
    return X86_64(
        levels=levels,
        swap_types=swap_types(target, page_flags),
        physical_mask=physical or (1 << 52) - 1,
        sme_mask=int(info.get("NUMBER(sme_mask)", "0"), 0),
        max_physmem_bits=int(info.get("NUMBER(MAX_PHYSMEM_BITS)", "52" if levels == 5 else "46")),
        devmap=devmap,
        saved_dirty="PG_double_map" not in page_flags,
    )


def _members(target: Target) -> set[str]:
    page = Struct(target.prog, "struct page")
    return {name for name in ("compound_info", "compound_head") if page.has(name)}


def _has_wrapped_flags(target: Target) -> bool:
    return Struct(target.prog, "struct page").has("flags.f")


def swap_types(target: Target, page_flags: dict[str, int]) -> SwapTypes:
    """How the kernel numbers its swap types (include/linux/swap.h).

    The configuration is known from what it leaves behind: PG_hwpoison, migrate_pages(), make_device_exclusive(). What
    stays open is settled by the room that the array ``swap_info`` has before the next symbol.

    Raises:
        LayoutError: Nothing fits.
    """
    hwpoison = "PG_hwpoison" in page_flags
    migration = target.symbol("migrate_pages") is not None
    failed = "PG_double_map" in page_flags  # a number of its own until 6.2, then a marker
    device = (0,)
    if target.symbol("make_device_exclusive") is not None:
        device = (3,)
    elif target.symbol("make_device_exclusive_range") is not None:
        device = (4,)
    room = _room(target)
    for numbers in device:
        for marker in (False, True) if failed else (True,):
            types = solve(hwpoison=hwpoison, migration=migration, device=numbers, marker=marker, swapin_error=failed)
            if types.max_swapfiles <= room:
                return types
    raise LayoutError(
        "the kernel's swap types are not known",
        target.path,
        "Its configuration is new to us",
    )


def _room(target: Target) -> int:
    """How many pointers fit between ``swap_info`` and the symbol after it."""
    start = target.symbol("swap_info")
    if start is None:
        return NR_TYPES
    for index in range(NR_TYPES):
        label = target.symbol_name(start + 8 * index) or ""
        if label.split("+")[0] != "swap_info":
            return index
    return NR_TYPES
