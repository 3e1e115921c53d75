"""Everywhere one can be: each screen's subject as a small value that can be compared, remembered and named."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class _Place:
    """A place; its title and its command need no snapshot, those of MmPlace and VmaPlace excepted."""

    @property
    def title(self) -> str:
        """Short name for the path on top of the screen."""
        return type(self).__name__.removesuffix("Place").lower()

    @property
    def command(self) -> str:
        """Words of the command line that show the same, without the target's options; "" for none."""
        return ""


@dataclass(frozen=True)
class OverviewPlace(_Place):
    """The target at a glance."""

    @property
    def command(self) -> str:
        """Identity comes from ``info``."""
        return "info"


@dataclass(frozen=True)
class FindingsPlace(_Place):
    """What the rules found; with a filter only some of it."""

    filter: str = ""

    @property
    def title(self) -> str:
        """With the filter."""
        return f"findings {self.filter}".strip()

    @property
    def command(self) -> str:
        """The whole check."""
        return "check"


@dataclass(frozen=True)
class FindingPlace(_Place):
    """One finding, by its place in the report."""

    index: int

    @property
    def title(self) -> str:
        """Numbered as in the list."""
        return f"finding #{self.index + 1}"

    @property
    def command(self) -> str:
        """The whole check; the finding itself has a better one in ``look``."""
        return "check"


@dataclass(frozen=True)
class RulePlace(_Place):
    """The manual page of a rule."""

    slug: str

    @property
    def title(self) -> str:
        """By its slug."""
        return f"rule {self.slug}"

    @property
    def command(self) -> str:
        """Its manual page."""
        return f"rules {self.slug}"


@dataclass(frozen=True)
class ProcessesPlace(_Place):
    """All address spaces."""

    @property
    def command(self) -> str:
        """As ``ps``."""
        return "ps"


@dataclass(frozen=True)
class MmPlace(_Place):
    """One address space, by its row in the mms; the session names it."""

    mm_idx: int


@dataclass(frozen=True)
class VmaPlace(_Place):
    """One VMA, by its row in the VMAs; with an address the cursor starts there. The session names it."""

    mm_idx: int
    vma_idx: int
    va: int | None = None


@dataclass(frozen=True)
class UserPlace(_Place):
    """An address of a process, by what the kernel calls the two: the session finds the rows once it is gone to.

    Screens of one folio lead there as long as not all mms and VMAs were read.

    Attributes:
        mm: Address of the mm_struct, or pid of a task.
        va: The address; None for the process.
    """

    mm: int
    va: int | None = None


@dataclass(frozen=True)
class FoliosPlace(_Place):
    """A table of folios, narrowed by a filter."""

    filter: str = ""

    @property
    def title(self) -> str:
        """With the filter."""
        return f"folios {self.filter}".strip()


@dataclass(frozen=True)
class FolioPlace(_Place):
    """The folio that a page belongs to."""

    pfn: int

    @property
    def title(self) -> str:
        """By page frame."""
        return f"folio {self.pfn:#x}"

    @property
    def command(self) -> str:
        """As ``explain``, which is what the screen shows."""
        return f"explain {self.pfn:#x}"


@dataclass(frozen=True)
class RmapPlace(_Place):
    """Both views of the mappings of the folio that a page belongs to."""

    pfn: int

    @property
    def title(self) -> str:
        """By page frame."""
        return f"rmap {self.pfn:#x}"

    @property
    def command(self) -> str:
        """As ``rmap``."""
        return f"rmap {self.pfn:#x}"


@dataclass(frozen=True)
class AnonVmaPlace(_Place):
    """An anon_vma, by its address."""

    addr: int

    @property
    def title(self) -> str:
        """By address."""
        return f"anon_vma {self.addr:#x}"

    @property
    def command(self) -> str:
        """As ``anon-vma``."""
        return f"anon-vma {self.addr:#x}"


@dataclass(frozen=True)
class FilePlace(_Place):
    """A file, by the address of its address_space."""

    addr: int

    @property
    def title(self) -> str:
        """By address."""
        return f"file {self.addr:#x}"

    @property
    def command(self) -> str:
        """As ``file``."""
        return f"file {self.addr:#x}"


@dataclass(frozen=True)
class SubjectsPlace(_Place):
    """What else can be browsed."""

    @property
    def title(self) -> str:
        """As its tab."""
        return "more"


@dataclass(frozen=True)
class SubjectPlace(_Place):
    """A report that is a list, by its name in `tui.views.subjects.SUBJECTS`."""

    name: str

    @property
    def title(self) -> str:
        """Its name."""
        return self.name

    @property
    def command(self) -> str:
        """The command of the same name; the list of files is that of ``file`` without one."""
        return "file" if self.name == "files" else self.name


@dataclass(frozen=True)
class SlotPlace(_Place):
    """A swap slot: its count, its folio and who refers to it.

    Attributes:
        type: Of the swap device.
        offset: On it.
    """

    type: int
    offset: int

    @property
    def title(self) -> str:
        """By type and offset."""
        return f"swap {self.type}:{self.offset:#x}"

    @property
    def command(self) -> str:
        """As ``swap``."""
        return self.title


@dataclass(frozen=True)
class MemoryPlace(_Place):
    """Physical memory; with a page frame the cursor starts there."""

    pfn: int | None = None

    @property
    def title(self) -> str:
        """With the page frame."""
        return "memory" if self.pfn is None else f"memory {self.pfn:#x}"

    @property
    def command(self) -> str:
        """The pages from there on."""
        return "" if self.pfn is None else f"page {self.pfn:#x}+64"


Place = (
    OverviewPlace
    | FindingsPlace
    | FindingPlace
    | RulePlace
    | ProcessesPlace
    | MmPlace
    | VmaPlace
    | UserPlace
    | FoliosPlace
    | FolioPlace
    | RmapPlace
    | AnonVmaPlace
    | FilePlace
    | MemoryPlace
    | SubjectsPlace
    | SubjectPlace
    | SlotPlace
)
