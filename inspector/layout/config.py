"""How this kernel was configured, in the few options that change what memory holds, and what shows it.

A member that a struct lacks proves little: it may be renamed, or belong to another option. An option is known from the
kernel's own configuration where that is in memory (CONFIG_IKCONFIG), else from functions that it alone brings.
"""

from __future__ import annotations

import re
import zlib

from inspector.layout.offsets import Struct
from inspector.memory import Memory
from inspector.records import dataclass
from inspector.target.target import Target

_FUNCTIONS = {
    "TRANSPARENT_HUGEPAGE": ("do_huge_pmd_anonymous_page", "do_huge_pmd_wp_page"),
    "SWAP": ("swap_entry_free", "get_swap_device", "si_swapinfo"),
    "KSM": ("__ksm_enter", "ksm_madvise"),
    "USERFAULTFD": ("handle_userfault", "userfaultfd_unmap_prep"),
    "HUGETLB_PAGE": ("hugetlb_fault", "hugetlb_reserve_pages"),
    "MEMCG": ("mem_cgroup_from_task", "__mem_cgroup_charge"),
    "NUMA": ("mpol_misplaced", "alloc_pages_mpol", "alloc_pages_interleave"),
}
"""Functions of which at least one is in a kernel with the option, inlined or not, and none in a kernel without."""

_MEMBERS = {
    "MM_ID": ("struct mm_struct", "mm_id"),
    "PREEMPT_RT": ("struct rw_semaphore", "rwbase"),
}
"""What is a member of a struct under the option alone, and was so since there is the option."""

_MAX_IKCONFIG = 4 << 20
_BEGIN, _END = b"IKCFG_ST", b"IKCFG_ED"


@dataclass(frozen=True)
class Config:
    """Options of the kernel, named without ``CONFIG_``.

    Attributes:
        options: Whether each is on.
        evidence: What shows that, in words, by option.
    """

    options: dict[str, bool]
    evidence: dict[str, str]

    def has(self, option: str) -> bool:
        """Whether an option is on."""
        return self.options[option]

    @property
    def thp_swap(self) -> bool:
        """CONFIG_THP_SWAP, which x86-64 has with both of its parts (mm/Kconfig)."""
        return self.has("TRANSPARENT_HUGEPAGE") and self.has("SWAP")


def probe_config(target: Target, memory: Memory) -> Config:
    """Find out which options are on."""
    written = _ikconfig(target, memory)
    options: dict[str, bool] = {}
    evidence: dict[str, str] = {}
    for option, functions in _FUNCTIONS.items():
        found = next((name for name in functions if target.symbol(name) is not None), None)
        options[option] = found is not None
        evidence[option] = f"{found}()" if found else f"no {functions[0]}()"
    for option, (type_, member) in _MEMBERS.items():
        options[option] = Struct(target.prog, type_).has(member)
        evidence[option] = f"{'has' if options[option] else 'no'} {type_.split()[1]}.{member}"
    if written is not None:
        for option in options:
            # An option that this kernel does not know yet is in no line of its own.
            options[option] = f"\nCONFIG_{option}=y\n" in written
            evidence[option] = "the kernel's own configuration"
    return Config(options, evidence)


def _ikconfig(target: Target, memory: Memory) -> str | None:
    """The kernel's .config (kernel/configs.c); None where it does not keep it or it cannot be read."""
    begin, end = target.symbol("kernel_config_data"), target.symbol("kernel_config_data_end")
    if begin is None:
        return None
    size = min((end or 0) - begin, _MAX_IKCONFIG)
    raw = memory.read(begin - len(_BEGIN), size + len(_BEGIN) + len(_END)) if size > 0 else None
    if raw is None:
        return None
    raw = raw.removeprefix(_BEGIN).removesuffix(_END)
    try:
        text = zlib.decompressobj(wbits=31).decompress(raw, 16 * _MAX_IKCONFIG).decode("ascii", "replace")
    except zlib.error:
        return None
    return "\n" + text + "\n" if re.search(r"^CONFIG_MMU=y$", text, re.MULTILINE) else None
