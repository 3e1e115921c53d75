"""Check mapcounts: what each page and large folio has stored beside what the page tables say it must be.

This is the heart of folioscope check in whole columns: mappings are counted, a model of the kernel's rmap code says
what each count must then be, and differences are listed. scripts/check.py applies all rules and finds the causes.

$ drgn -c tests/fixtures/7.3.kdump scripts/check_mapcounts.py
_mapcount             23218 compared, 0 differ
_entire_mapcount        126 compared, 0 differ
_large_mapcount         126 compared, 0 differ
every count is that of its mappings
"""

import numpy as np
import numpy.typing as npt

import inspector

snapshot = inspector.Snapshot(inspector.from_program())
pages, folios, expected = snapshot.pages, snapshot.folios, snapshot.expected
if expected is None or snapshot.scheme is None:
    raise SystemExit("how this kernel counts mappings could not be recognized")
differences = 0
Numbers = npt.NDArray[np.integer]


def compare(what: str, pfns: Numbers, stored: Numbers, wanted: Numbers) -> None:
    """Print how many values of a kind were compared, and those that differ; counts are stored as one less."""
    global differences
    rows = np.flatnonzero(stored != wanted)
    differences += len(rows)
    print(f"{what:18} {len(stored):8} compared, {len(rows)} differ")
    for row in rows[:20].tolist():
        print(f"    pfn {pfns[row]:#x}: {stored[row] + 1} stored, {wanted[row] + 1} mappings")


rows = np.arange(len(pages))
user = np.flatnonzero(snapshot.anon_pages[rows] | snapshot.file_pages[rows])
# Where a page has a type (hugetlb, from 6.11 on), the word holds that and no count.
user = user[snapshot.page_type_names(pages.head_row[user]) == "none"]
if not snapshot.scheme.has_page_mapcount:
    user = user[snapshot.folio_of_page[user] < 0]
compare("_mapcount", pages.memmap.pfns_of_rows(user), pages.mapcount_raw[user], expected.page_mapcount_raw[user])
large = np.flatnonzero(folios.is_anon | folios.is_rmappable | folios.is_hugetlb)
compare("_entire_mapcount", folios.pfn[large], folios.entire_raw[large], expected.entire_raw[large])
compare("_large_mapcount", folios.pfn[large], folios.large_raw[large], expected.large_raw[large])
print("every count is that of its mappings" if not differences else "see folioscope check, or scripts/folio.py PFN")
