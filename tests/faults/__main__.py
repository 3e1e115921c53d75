"""Plant every fault in every kernel's dump and write the detection matrix anew."""

from __future__ import annotations

from tests.faults.matrix import MATRIX, build

if __name__ == "__main__":
    MATRIX.write_text(build(), encoding="utf-8")
    print(f"wrote {MATRIX}")
