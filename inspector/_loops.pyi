from inspector.columns import I32, I64, U8, U16, U64

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
    entries: U64,
    is_leaf: int,
    is_plain: int,
    address: int,
    page_shift: int,
    vma_low: I32,
    vma_high: I32,
    va: U64,
    vma_start: U64,
    vma_end: U64,
    row_delta: I64,
    row_shift: int,
    border: U8,
    run_table: I32,
    run_slot: U16,
    run_nr: U16,
    run_vma: I32,
    run_row: I64,
    other: I32,
) -> tuple[int, int]: ...
