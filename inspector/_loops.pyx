# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The inner loops over struct pages and page-table entries, compiled. `inspector.loops` says what each does."""

import numpy as np

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


def leaf_runs(
    const uint64_t[:, ::1] entries,
    uint64_t is_leaf,
    uint64_t is_plain,
    uint64_t address,
    int page_shift,
    const int32_t[::1] vma_low,
    const int32_t[::1] vma_high,
    const uint64_t[::1] va,
    const uint64_t[::1] vma_start,
    const uint64_t[::1] vma_end,
    const int64_t[::1] row_delta,
    int row_shift,
    const uint8_t[::1] border,
    int32_t[::1] run_table,
    uint16_t[::1] run_slot,
    uint16_t[::1] run_nr,
    int32_t[::1] run_vma,
    int64_t[::1] run_row,
    int32_t[::1] other,
):
    cdef Py_ssize_t tables = entries.shape[0], width = entries.shape[1], t, i, runs = 0, others = 0
    cdef uint64_t entry, before, step, at, one = 1
    cdef int64_t pfn, row, last_row, cell, nr_cells = row_delta.shape[0]
    cdef int64_t nr_pages = border.shape[0]
    cdef int32_t vma, last_vma, v, high
    cdef bint joined
    step = one << page_shift
    with nogil:
        for t in range(tables):
            v = vma_low[t]
            high = vma_high[t]
            joined = False
            before = 0
            last_vma = -1
            last_row = -1
            for i in range(width):
                entry = entries[t, i]
                if entry == 0:
                    joined = False
                    continue
                if (entry & is_leaf) == 0:
                    joined = False
                    other[others] = <int32_t>(t * width + i)
                    others += 1
                    continue
                at = va[t] + (<uint64_t>i << page_shift)
                while v < high and vma_end[v] <= at:
                    v += 1
                vma = v if v < high and vma_start[v] <= at else -1
                if entry & is_plain:
                    pfn = <int64_t>((entry & address) >> page_shift)
                else:
                    # Entries that the hardware takes for not present hold their page frame inverted.
                    pfn = <int64_t>((~entry & address) >> page_shift)
                cell = pfn >> row_shift
                row = -1
                if 0 <= cell < nr_cells:
                    row = pfn + row_delta[cell]
                    if row < 0:
                        row = -1
                if joined:
                    joined = entry - before == (step if before & is_plain else -step) and vma == last_vma
                    # A page without struct page runs on only with others of its kind.
                    if joined:
                        if row >= 0:
                            joined = row == last_row + 1 and row < nr_pages and border[row] == 0
                        else:
                            joined = last_row < 0
                if joined:
                    run_nr[runs - 1] += 1
                else:
                    run_table[runs] = <int32_t>t
                    run_slot[runs] = <uint16_t>i
                    run_nr[runs] = 1
                    run_vma[runs] = vma
                    run_row[runs] = row
                    runs += 1
                before = entry
                last_vma = vma
                last_row = row
                joined = True
    return runs, others


cdef class Distinct:
    """The distinct rows of words met so far, each with a number, in the order in which they were met."""

    cdef readonly int width
    cdef readonly Py_ssize_t length
    cdef uint64_t[:, ::1] _values
    cdef int64_t[::1] _weights
    cdef int32_t[::1] _slots
    cdef uint64_t _mask

    def __init__(self, int width):
        self.width = width
        self.length = 0
        self._values = _empty_u64(1 << 10, width)
        self._weights = _zero_i64(1 << 10)
        self._slots = _no_i32(1 << 12)
        self._mask = (1 << 12) - 1

    @property
    def values(self):
        return np.array(self._values[: self.length])

    @property
    def weights(self):
        return np.array(self._weights[: self.length])

    def codes(self, const uint64_t[:, ::1] rows, const int64_t[::1] weights, int32_t[::1] out):
        cdef Py_ssize_t n = rows.shape[0], i, j
        cdef int w = self.width
        cdef int32_t code = -1
        cdef uint64_t hashed, slot
        cdef bint same, weighted = weights.shape[0] > 0
        if rows.shape[1] != w or out.shape[0] != n or (weighted and weights.shape[0] != n):
            raise ValueError("columns of unequal length")
        for i in range(n):
            if i:
                same = True
                for j in range(w):
                    if rows[i, j] != rows[i - 1, j]:
                        same = False
                        break
            else:
                same = False
            if not same:
                hashed = 0
                for j in range(w):
                    hashed = (hashed ^ rows[i, j]) * <uint64_t>0x9E3779B97F4A7C15u
                    hashed ^= hashed >> 29
                slot = hashed & self._mask
                while True:
                    code = self._slots[slot]
                    if code < 0:
                        code = self._add(rows[i], slot)
                        break
                    same = True
                    for j in range(w):
                        if self._values[code, j] != rows[i, j]:
                            same = False
                            break
                    if same:
                        break
                    slot = (slot + 1) & self._mask
            out[i] = code
            self._weights[code] += weights[i] if weighted else 1

    cdef int32_t _add(self, const uint64_t[::1] row, uint64_t slot) except -1:
        cdef int32_t code = <int32_t>self.length
        cdef int j
        if self.length == self._values.shape[0]:
            self._grow()
        for j in range(self.width):
            self._values[code, j] = row[j]
        self._weights[code] = 0
        self._slots[slot] = code
        self.length += 1
        if <uint64_t>self.length * 3 > self._mask:
            self._rehash()
        return code

    cdef int _grow(self) except -1:
        cdef Py_ssize_t have = self._values.shape[0]
        if have >= 1 << 30:
            raise OverflowError("more than 2^30 distinct rows")
        values, weights = np.empty((2 * have, self.width), np.uint64), np.zeros(2 * have, np.int64)
        values[:have] = self._values
        weights[:have] = self._weights
        self._values, self._weights = values, weights
        return 0

    cdef int _rehash(self) except -1:
        cdef uint64_t size = (self._mask + 1) * 4, mask = size - 1, hashed, slot
        cdef Py_ssize_t i
        cdef int j
        cdef int32_t[::1] slots = _no_i32(size)
        for i in range(self.length):
            hashed = 0
            for j in range(self.width):
                hashed = (hashed ^ self._values[i, j]) * <uint64_t>0x9E3779B97F4A7C15u
                hashed ^= hashed >> 29
            slot = hashed & mask
            while slots[slot] >= 0:
                slot = (slot + 1) & mask
            slots[slot] = <int32_t>i
        self._slots = slots
        self._mask = mask
        return 0


def _empty_u64(n, width):
    return np.empty((n, width), np.uint64)


def _zero_i64(n):
    return np.zeros(n, np.int64)


def _no_i32(n):
    return np.full(n, -1, np.int32)
