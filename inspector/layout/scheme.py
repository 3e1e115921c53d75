"""Which mapcount accounting this kernel uses, known from the members of its types."""

from __future__ import annotations

import drgn

from inspector.layout.config import Config
from inspector.layout.offsets import Struct, enumerators
from inspector.model.scheme import Scheme
from inspector.records import dataclass


@dataclass(frozen=True, slots=True)
class SchemeEvidence:
    """The accounting scheme and the members that show it.

    Attributes:
        scheme: None when the evidence is mixed; rules that need it are then not applicable.
        evidence: The members found and missing, in words.
    """

    scheme: Scheme | None
    evidence: tuple[str, ...]


def probe_scheme(prog: drgn.Program, config: Config) -> SchemeEvidence:
    """Find the scheme from members of struct page and struct folio and from enum pageflags.

    A kernel that has the members of mm ids uses them with CONFIG_MM_ID alone, which comes with THP
    (include/linux/rmap.h). Whether a kernel with mm ids still keeps page counts (CONFIG_NO_PAGE_MAPCOUNT) is in no
    type; the folio table settles it from the data (`inspector.tables.folios.settle_page_mapcount`).
    """
    page, folio = Struct(prog, "struct page"), Struct(prog, "struct folio")
    double_map = "PG_double_map" in enumerators(prog, "enum pageflags")
    seen: list[str] = []

    def has(struct: Struct, name: str) -> bool:
        found = struct.has(name)
        seen.append(f"{'has' if found else 'no'} {struct.name.split()[1]}.{name}")
        return found

    word = has(folio, "_nr_pages_mapped")
    large = has(folio, "_large_mapcount")
    ids = has(folio, "_mm_id_mapcount")
    if ids and not config.has("MM_ID"):
        seen.append(f"CONFIG_MM_ID is off ({config.evidence['MM_ID']})")
        ids = False
    compound = has(page, "compound_mapcount")
    subpages = has(folio, "_subpages_mapcount") or page.has("subpages_mapcount")
    seen.append(f"{'has' if double_map else 'no'} PG_double_map")
    scheme: Scheme | None = None
    match (word, large, ids, compound, subpages, double_map):
        case (False, False, False, True, False, True):
            scheme = Scheme.OLD
        case (False, False, False, True, True, False):
            scheme = Scheme.SUBPAGES
        case (True, False, False, _, _, False):
            scheme = Scheme.RMAP68
        case (True, True, False, _, _, False):
            scheme = Scheme.LARGE
        case (True, True, True, _, _, False):
            scheme = Scheme.MM_IDS
        case _:
            scheme = None
    return SchemeEvidence(scheme, tuple(seen))
