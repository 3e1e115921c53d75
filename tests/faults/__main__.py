"""Plant faults in every kernel's dump, all or those named, and write the detection matrix anew."""

from __future__ import annotations

import sys

from tests.faults.every import CATALOGUE
from tests.faults.matrix import MATRIX, build

if __name__ == "__main__":
    names = sys.argv[1:]
    if unknown := [name for name in names if name not in CATALOGUE]:
        sys.exit(f"there is no such fault: {', '.join(unknown)}")
    MATRIX.write_text(build(names), encoding="utf-8")
    print(f"wrote {MATRIX}")
