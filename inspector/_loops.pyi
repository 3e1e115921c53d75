from inspector.columns import I32, I64, U8, U32, U64

VERSION: int

class Distinct:
    width: int
    length: int
    def __init__(self, width: int) -> None: ...
    @property
    def values(self) -> U64: ...
    @property
    def weights(self) -> I64: ...
    def codes(self, rows: U64, weights: I64, out: I32) -> None: ...

def leaf_runs(
    words: U64,
    width_shift: int,
    is_leaf: int,
    is_plain: int,
    page_shift: int,
    vma_low: I32,
    vma_high: I32,
    va: U64,
    vma_start: U64,
    vma_end: U64,
    run_at: I64,
    run_nr: U32,
    run_vma: I32,
    other: I64,
) -> tuple[int, int]: ...
def cut_runs(border: U8, bit: int, first: I64, nr: I64, owner: I64, skip: I64, length: I64) -> int: ...
def count_runs(counts: I32, row: I32, nr: U32) -> None: ...
