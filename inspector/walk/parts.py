"""The tables that the walks above the page tables need; a snapshot has them all."""

from __future__ import annotations

from typing import Protocol

from inspector.columns import I32
from inspector.layout.kernel import Layout
from inspector.tables.anon_vmas import AnonRmap
from inspector.tables.folios import Folios
from inspector.tables.i_mmap import FileRmap
from inspector.tables.mms import Mms
from inspector.tables.pages import Pages
from inspector.tables.stacks import Stacks
from inspector.tables.tasks import Tasks
from inspector.tables.vmas import Vmas
from inspector.walk.counts import MappingCounts
from inspector.walk.mappings import Mappings, NonPresent


class Counted(Protocol):
    """Tables up to the counts; each as the snapshot's property of that name says."""

    @property
    def layout(self) -> Layout: ...  # noqa: D102
    @property
    def pages(self) -> Pages: ...  # noqa: D102
    @property
    def folios(self) -> Folios: ...  # noqa: D102
    @property
    def folio_of_page(self) -> I32: ...  # noqa: D102
    @property
    def mms(self) -> Mms: ...  # noqa: D102
    @property
    def vmas(self) -> Vmas: ...  # noqa: D102
    @property
    def mappings(self) -> Mappings: ...  # noqa: D102
    @property
    def nonpresent(self) -> NonPresent: ...  # noqa: D102
    @property
    def counts(self) -> MappingCounts: ...  # noqa: D102


class StackParts(Protocol):
    """Tasks, their stacks, and the address spaces they may work on."""

    @property
    def layout(self) -> Layout: ...  # noqa: D102
    @property
    def tasks(self) -> Tasks: ...  # noqa: D102
    @property
    def stacks(self) -> Stacks: ...  # noqa: D102
    @property
    def mms(self) -> Mms: ...  # noqa: D102
    @property
    def vmas(self) -> Vmas: ...  # noqa: D102


class RmapParts(Counted, Protocol):
    """The same with the reverse maps."""

    @property
    def anon_rmap(self) -> AnonRmap: ...  # noqa: D102
    @property
    def file_rmap(self) -> FileRmap: ...  # noqa: D102
