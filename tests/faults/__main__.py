"""Plant faults in every kernel's dump, all or those named, and write the detection matrix anew."""

from __future__ import annotations

import sys

from tests.faults.every import CATALOGUE
from tests.faults.matrix import MATRIX, build, parse

if __name__ == "__main__":
    names = sys.argv[1:]
    if unknown := [name for name in names if name not in CATALOGUE]:
        sys.exit(f"there is no such fault: {', '.join(unknown)}")
    text = build(names)
    MATRIX.write_text(text, encoding="utf-8")
    print(f"wrote {MATRIX}")
    cells = {key: cell for key, cell in parse(text).items() if not names or key[0] in names}
    for (name, kernel), cell in cells.items():
        if names:
            print(f"{name} on {kernel}: {cell}")
    if lost := [f"{name} on {kernel}" for (name, kernel), cell in cells.items() if cell == "nothing" or "," in cell]:
        sys.exit(f"not found alone: {', '.join(lost)}")
