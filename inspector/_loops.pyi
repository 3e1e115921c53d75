from inspector.columns import I32, I64, U8, U16, U32, U64, Mask

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
def fill_runs(
    words: U64,
    width_shift: int,
    run_at: I64,
    is_plain: int,
    address: int,
    page_shift: int,
    low_bits: U16,
    high_bits: U16,
    table: I64,
    table_mm: I32,
    table_va: U64,
    table_first: U8 | Mask,
    start: int,
    mm_idx: I32,
    va: U64,
    pfn: I64,
    entry: U64,
    table_idx: I32,
    slot: U16,
    counted: U8 | Mask,
    bits: U16,
) -> None: ...
def judge_runs(
    pfn: I64,
    bits: U16,
    row_delta: I64,
    row_shift: int,
    codes: U8,
    class_mask: int,
    compound: I32,
    heads: I32,
    special_bits: int,
    zero_pfn: int,
    classes: U8,
    entry_class: U8,
    page_row: I32,
    head_row: I32,
) -> None: ...
def link_kinds(
    entry_class: U8,
    normal: int,
    vma_idx: I32,
    page_row: I32,
    nr: U32,
    va: U64,
    codes: U8,
    border: int,
    unknown: int,
    number: I32,
    compound: I32,
    heads: I32,
    index: U64,
    word_mapping: U64,
    word_kind: U8,
    is_hugetlb: U8 | Mask,
    bits: U8,
    vma_start: U64,
    vma_pgoff: U64,
    vma_anon_pgoff: U64,
    page_shift: int,
    kinds: Distinct,
    wanted: U8 | Mask,
    owner: I32,
    skip: I32,
    length: I32,
) -> int: ...
def entry_kinds(
    level: U8,
    bits: U16,
    entry_class: U8,
    mm_idx: I32,
    vma_idx: I32,
    head_row: I32,
    page_row: I32,
    nr: U32,
    codes: U8,
    unlike: int,
    number: I32,
    compound: I32,
    is_hugetlb: U8 | Mask,
    kinds: Distinct,
    kind: I32,
    first: I64,
    runs: I64,
) -> int: ...
def list_sums(following: I32, first: I64, sums: U64, nr: int, turn: int, spread: int) -> int: ...
