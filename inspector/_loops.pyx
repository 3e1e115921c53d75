# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The inner loops over struct pages and page-table entries, compiled. `inspector.loops` says what each does."""

import numpy as np

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


def leaf_runs(
    const uint64_t[::1] words,
    int width_shift,
    uint64_t is_leaf,
    uint64_t is_plain,
    int page_shift,
    const int32_t[::1] vma_low,
    const int32_t[::1] vma_high,
    const uint64_t[::1] va,
    const uint64_t[::1] vma_start,
    const uint64_t[::1] vma_end,
    int64_t[::1] run_at,
    uint32_t[::1] run_nr,
    int32_t[::1] run_vma,
    int64_t[::1] other,
):
    cdef Py_ssize_t tables = vma_low.shape[0], width = (<Py_ssize_t>1) << width_shift
    cdef Py_ssize_t t, i, place, runs = 0, others = 0
    cdef uint64_t entry, before, step = (<uint64_t>1) << page_shift, at
    cdef int32_t vma, last_vma, v, high
    cdef bint joined
    if vma_high.shape[0] != tables or va.shape[0] != tables or words.shape[0] != tables * width:
        raise ValueError("columns of unequal length")
    if run_at.shape[0] < words.shape[0] or run_nr.shape[0] < words.shape[0] or run_vma.shape[0] < words.shape[0]:
        raise ValueError("too little room for runs")
    if other.shape[0] < words.shape[0] or vma_start.shape[0] != vma_end.shape[0]:
        raise ValueError("too little room for other entries")
    for t in range(tables):
        if vma_low[t] < 0 or vma_high[t] > vma_start.shape[0]:
            raise ValueError("VMAs out of range")
    with nogil:
        for t in range(tables):
            v = vma_low[t]
            high = vma_high[t]
            joined = False
            before = 0
            last_vma = -1
            for i in range(width):
                place = t * width + i
                entry = words[place]
                if entry == 0:
                    joined = False
                    continue
                if (entry & is_leaf) == 0:
                    joined = False
                    other[others] = place
                    others += 1
                    continue
                at = va[t] + (<uint64_t>i << page_shift)
                while v < high and vma_end[v] <= at:
                    v += 1
                vma = v if v < high and vma_start[v] <= at else -1
                if joined and vma == last_vma and entry - before == (step if before & is_plain else 0 - step):
                    run_nr[runs - 1] += 1
                else:
                    run_at[runs] = place
                    run_nr[runs] = 1
                    run_vma[runs] = vma
                    runs += 1
                before = entry
                last_vma = vma
                joined = True
    return runs, others


def cut_runs(
    const uint8_t[::1] border,
    uint8_t bit,
    const int64_t[::1] first,
    const int64_t[::1] nr,
    int64_t[::1] owner,
    int64_t[::1] skip,
    int64_t[::1] length,
):
    cdef Py_ssize_t n = first.shape[0], room = owner.shape[0], i, pieces = 0
    cdef int64_t j, row, last = border.shape[0] - 1, begin
    if nr.shape[0] != n or skip.shape[0] != room or length.shape[0] != room:
        raise ValueError("columns of unequal length")
    with nogil:
        for i in range(n):
            begin = 0
            for j in range(1, nr[i]):
                row = first[i] + j
                if row > last:
                    row = last
                if border[row] & bit:
                    if pieces >= room:
                        break
                    owner[pieces] = i
                    skip[pieces] = begin
                    length[pieces] = j - begin
                    pieces += 1
                    begin = j
            if pieces >= room:
                pieces = -1
                break
            owner[pieces] = i
            skip[pieces] = begin
            length[pieces] = nr[i] - begin
            pieces += 1
    return pieces


cdef extern from *:
    """
    #define ADD_TOGETHER(place) __atomic_fetch_add(place, 1, __ATOMIC_RELAXED)
    """
    void ADD_TOGETHER(int32_t *place) nogil


def count_runs(int32_t[::1] counts, const int32_t[::1] row, const uint32_t[::1] nr, bint together):
    """``together``: other processes add to the same counts meanwhile."""
    cdef Py_ssize_t n = row.shape[0], i
    cdef int64_t j, end, pages = counts.shape[0]
    if nr.shape[0] != n:
        raise ValueError("columns of unequal length")
    with nogil:
        for i in range(n):
            if row[i] < 0:
                continue
            end = <int64_t>row[i] + nr[i]
            if end > pages:
                end = pages
            if together:
                for j in range(row[i], end):
                    ADD_TOGETHER(&counts[j])
            else:
                for j in range(row[i], end):
                    counts[j] += 1


VERSION = 9
"""Of the functions' arguments; an extension of another version than `inspector.loops` asks for is not used."""


def fill_runs(
    const uint64_t[::1] words,
    int width_shift,
    const int64_t[::1] run_at,
    uint64_t is_plain,
    uint64_t address,
    int page_shift,
    const uint16_t[::1] low_bits,
    const uint16_t[::1] high_bits,
    const int64_t[::1] table,
    const int32_t[::1] table_mm,
    const uint64_t[::1] table_va,
    const uint8_t[::1] table_first,
    int64_t start,
    int32_t[::1] mm_idx,
    uint64_t[::1] va,
    int64_t[::1] pfn,
    uint64_t[::1] entry,
    int32_t[::1] table_idx,
    uint16_t[::1] slot,
    uint8_t[::1] counted,
    uint16_t[::1] bits,
):
    cdef Py_ssize_t n = run_at.shape[0], i, place, tables = table.shape[0], inside = table_mm.shape[0]
    cdef uint64_t word, low_mask = low_bits.shape[0] - 1, width_mask = ((<uint64_t>1) << width_shift) - 1
    cdef int high_shift = 64
    cdef int64_t row
    cdef uint64_t highs = high_bits.shape[0]
    while highs > 1:
        highs >>= 1
        high_shift -= 1
    if mm_idx.shape[0] != n or va.shape[0] != n or pfn.shape[0] != n or entry.shape[0] != n:
        raise ValueError("columns of unequal length")
    if table_idx.shape[0] != n or slot.shape[0] != n or counted.shape[0] != n or bits.shape[0] != n:
        raise ValueError("columns of unequal length")
    if words.shape[0] != tables << width_shift or table_va.shape[0] != inside or table_first.shape[0] != inside:
        raise ValueError("columns of unequal length")
    for i in range(tables):
        if not 0 <= table[i] < inside:
            raise ValueError("rows of tables out of range")
    for i in range(n):
        if not 0 <= run_at[i] < words.shape[0]:
            raise ValueError("positions of entries out of range")
    with nogil:
        for i in range(n):
            word = words[run_at[i]]
            place = run_at[i] >> width_shift
            row = table[place]
            mm_idx[i] = table_mm[row]
            slot[i] = <uint16_t>(<uint64_t>run_at[i] & width_mask)
            va[i] = table_va[row] + (<uint64_t>slot[i] << page_shift)
            entry[i] = word
            # Entries that the hardware takes for not present hold their page frame inverted.
            pfn[i] = <int64_t>(((word if word & is_plain else ~word) & address) >> page_shift)
            table_idx[i] = <int32_t>(row + start)
            counted[i] = table_first[row]
            bits[i] = low_bits[word & low_mask] | high_bits[word >> high_shift]


def judge_runs(
    const int64_t[::1] pfn,
    const uint16_t[::1] bits,
    const int64_t[::1] row_delta,
    int row_shift,
    const uint8_t[::1] codes,
    uint8_t class_mask,
    const int32_t[::1] compound,
    const int32_t[::1] heads,
    uint16_t special_bits,
    int64_t zero_pfn,
    const uint8_t[::1] classes,
    uint8_t[::1] entry_class,
    int32_t[::1] page_row,
    int32_t[::1] head_row,
):
    """``classes``: what to give for no page, special and zero."""
    cdef Py_ssize_t n = pfn.shape[0], i
    cdef int64_t cell, cells = row_delta.shape[0], row, pages = codes.shape[0], head_count = heads.shape[0], at
    cdef uint8_t no_page = classes[0], special = classes[1], zero = classes[2], found
    if bits.shape[0] != n or entry_class.shape[0] != n or page_row.shape[0] != n or head_row.shape[0] != n:
        raise ValueError("columns of unequal length")
    if compound.shape[0] != pages:
        raise ValueError("columns of unequal length")
    with nogil:
        for i in range(n):
            cell = pfn[i] >> row_shift
            row = -1
            if 0 <= cell < cells:
                row = pfn[i] + row_delta[cell]
                if row < 0 or row >= pages:
                    row = -1
            found = no_page
            page_row[i] = <int32_t>row
            head_row[i] = -1
            if row >= 0:
                found = codes[row] & class_mask
                at = compound[row]
                if at == -1:
                    head_row[i] = <int32_t>row
                else:
                    # Counted from the end, as NumPy does.
                    if at < 0:
                        at += head_count
                    if 0 <= at < head_count:
                        head_row[i] = heads[at]
            if bits[i] & special_bits:
                found = special
            if pfn[i] == zero_pfn:
                found = zero
            entry_class[i] = found


cdef inline uint64_t _hashed(const uint64_t *row, int width) noexcept:
    cdef uint64_t hashed = 0
    cdef int j
    for j in range(width):
        hashed = (hashed ^ row[j]) * <uint64_t>0x9E3779B97F4A7C15u
        hashed ^= hashed >> 29
    return hashed


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
                code = self.number(&rows[i, 0])
            out[i] = code
            self._weights[code] += weights[i] if weighted else 1

    cdef int32_t number(self, const uint64_t *row) except -1:
        """The number of a row, a new one where it was not met before; counts nothing."""
        cdef int w = self.width, j
        cdef uint64_t slot = _hashed(row, w) & self._mask
        cdef int32_t code
        cdef bint same
        while True:
            code = self._slots[slot]
            if code < 0:
                return self._add(row, slot)
            same = True
            for j in range(w):
                if self._values[code, j] != row[j]:
                    same = False
                    break
            if same:
                return code
            slot = (slot + 1) & self._mask

    cdef int32_t _add(self, const uint64_t *row, uint64_t slot) except -1:
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
        cdef uint64_t size = (self._mask + 1) * 4, mask = size - 1, slot
        cdef Py_ssize_t i
        cdef int32_t[::1] slots = _no_i32(size)
        for i in range(self.length):
            slot = _hashed(&self._values[i, 0], self.width) & mask
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


def link_kinds(
    const uint8_t[::1] entry_class,
    uint8_t normal,
    const int32_t[::1] vma_idx,
    const int32_t[::1] page_row,
    const uint32_t[::1] nr,
    const uint64_t[::1] va,
    const uint8_t[::1] codes,
    uint8_t border,
    uint8_t unknown,
    const int32_t[::1] number,
    const int32_t[::1] compound,
    const int32_t[::1] heads,
    const uint64_t[::1] index,
    const uint64_t[::1] word_mapping,
    const uint8_t[::1] word_kind,
    const uint8_t[::1] is_hugetlb,
    const uint8_t[::1] bits,
    const uint64_t[::1] vma_start,
    const uint64_t[::1] vma_pgoff,
    const uint64_t[::1] vma_anon_pgoff,
    int page_shift,
    Distinct kinds,
    const uint8_t[::1] wanted,
    int32_t[::1] owner,
    int32_t[::1] skip,
    int32_t[::1] length,
):
    """``bits``: of an anonymous, a hugetlb and an unreadable folio; ``word_kind``: 0x80 for pages with a type.

    Without ``wanted`` the first link of each kind is put out, with it all links of the kinds that are: -1 where there is
    too little room for them.
    """
    cdef Py_ssize_t n = nr.shape[0], room = owner.shape[0], i, links = 0, place = -1
    cdef int64_t pages = number.shape[0], row, head, at, head_count = heads.shape[0], folios = is_hugetlb.shape[0]
    cdef int64_t vma, vmas = vma_start.shape[0], words = word_mapping.shape[0], of_head
    cdef uint32_t j
    cdef uint8_t kind, anon = bits[0], hugetlb = bits[1], unread = bits[2]
    cdef bint huge, choose = wanted.shape[0] > 0
    cdef uint64_t linear, link[3]
    cdef uint64_t last[3]
    cdef int32_t code = -1
    if entry_class.shape[0] != n or vma_idx.shape[0] != n or page_row.shape[0] != n or va.shape[0] != n:
        raise ValueError("columns of unequal length")
    if skip.shape[0] != room or length.shape[0] != room or kinds.width != 3:
        raise ValueError("columns of unequal length")
    if codes.shape[0] < pages or compound.shape[0] != pages or index.shape[0] != pages or word_kind.shape[0] != words:
        raise ValueError("columns of unequal length")
    if vma_pgoff.shape[0] != vmas or vma_anon_pgoff.shape[0] != vmas:
        raise ValueError("columns of unequal length")
    for i in range(n):
        vma = vma_idx[i]
        if entry_class[i] != normal or vma < 0 or vma >= vmas or page_row[i] < 0:
            continue
        for j in range(nr[i]):
            row = <int64_t>page_row[i] + j
            if row >= pages:
                break
            if j and not codes[row] & border:
                if place >= 0:
                    length[place] += 1
                continue
            at = compound[row]
            head = row
            huge = False
            if at != -1:
                if at >= 0 and at < folios:
                    huge = is_hugetlb[at]
                if at < 0:
                    at += head_count
                head = heads[at] if 0 <= at < head_count else -1
                if head < 0:
                    # A tail without a head has no normal entry; NumPy would take the last page's.
                    head = pages - 1
            of_head = number[head]
            kind = word_kind[of_head]
            if kind & 0x80 and not huge:
                kind = 0
            kind &= 0x7F
            if huge:
                kind |= hugetlb
            if codes[head] & unknown:
                kind |= unread
            linear = (va[i] + (<uint64_t>j << page_shift) - vma_start[vma]) >> page_shift
            linear += vma_anon_pgoff[vma] if kind & anon else vma_pgoff[vma]
            link[0] = <uint64_t>vma | <uint64_t>kind << 32
            link[1] = word_mapping[of_head]
            link[2] = index[head] + <uint64_t>(row - head) - linear
            place = -1
            if code < 0 or link[0] != last[0] or link[1] != last[1] or link[2] != last[2]:
                last[0] = link[0]
                last[1] = link[1]
                last[2] = link[2]
                code = kinds.number(link)
                if not choose and code == links:
                    place = links
            if choose and code < wanted.shape[0] and wanted[code]:
                place = links
            kinds._weights[code] += 1
            if place >= 0:
                if links >= room:
                    return -1
                owner[links] = <int32_t>i
                skip[links] = <int32_t>j
                length[links] = 1
                links += 1
    return links


def entry_kinds(
    const uint8_t[::1] level,
    const uint16_t[::1] bits,
    const uint8_t[::1] entry_class,
    const int32_t[::1] mm_idx,
    const int32_t[::1] vma_idx,
    const int32_t[::1] head_row,
    const int32_t[::1] page_row,
    const uint32_t[::1] nr,
    const uint8_t[::1] codes,
    uint8_t unlike,
    const int32_t[::1] number,
    const int32_t[::1] compound,
    const uint8_t[::1] is_hugetlb,
    Distinct kinds,
    int32_t[::1] kind,
    int64_t[::1] first,
    int64_t[::1] runs,
):
    """-1 where there is too little room for the first run of each kind; runs whose own pages differ have kind -1."""
    cdef Py_ssize_t n = nr.shape[0], i, room = first.shape[0]
    cdef int64_t pages = number.shape[0], row, last_code = codes.shape[0] - 1, at, folios = is_hugetlb.shape[0]
    cdef uint32_t j, low, second
    cdef uint64_t key[2]
    cdef uint64_t last[2]
    cdef int32_t code = -1
    cdef bint alike
    if bits.shape[0] != n or entry_class.shape[0] != n or mm_idx.shape[0] != n or vma_idx.shape[0] != n:
        raise ValueError("columns of unequal length")
    if head_row.shape[0] != n or page_row.shape[0] != n or level.shape[0] != n or kind.shape[0] != n:
        raise ValueError("columns of unequal length")
    if compound.shape[0] != pages or runs.shape[0] != room or kinds.width != 2 or last_code < 0:
        raise ValueError("columns of unequal length")
    for i in range(n):
        row = page_row[i]
        alike = True
        if row >= 0:
            for j in range(1, nr[i]):
                if codes[min(row + j, last_code)] & unlike:
                    alike = False
                    break
        if not alike:
            kind[i] = -1
            continue
        low = <uint32_t>bits[i] << 16 | <uint32_t>entry_class[i] << 8 | level[i]
        if 0 <= row < pages:
            at = compound[row]
            if 0 <= at < folios and is_hugetlb[at]:
                low |= 1 << 7
        second = <uint32_t>(vma_idx[i] if vma_idx[i] >= 0 else -2 - mm_idx[i])
        key[0] = <uint64_t>low | <uint64_t>second << 32
        low = <uint32_t>(number[head_row[i]] if 0 <= head_row[i] < pages else -1)
        second = <uint32_t>(number[row] if 0 <= row < pages else -1)
        key[1] = <uint64_t>low | <uint64_t>second << 32
        if code < 0 or key[0] != last[0] or key[1] != last[1]:
            last[0] = key[0]
            last[1] = key[1]
            code = kinds.number(key)
            if code >= room:
                return -1
            if kinds._weights[code] == 0:
                first[code] = i
                runs[code] = 0
        kind[i] = code
        runs[code] += 1
        kinds._weights[code] += nr[i]
    return kinds.length


def list_misfits(const int32_t[::1] rows, const int32_t[::1] following, const int32_t[::1] before, uint8_t[::1] out):
    cdef Py_ssize_t n = rows.shape[0], pages = following.shape[0], i
    cdef int32_t row, other
    cdef uint8_t found
    if before.shape[0] != pages or out.shape[0] != n:
        raise ValueError("columns of unequal length")
    with nogil:
        for i in range(n):
            row = rows[i]
            if row < 0 or row >= pages:
                out[i] = 0
                continue
            found = 0
            other = following[row]
            if other > 0 and (other > pages or other == row + 1 or before[other - 1] != row + 1):
                found |= 1
            other = before[row]
            if other > 0 and (other > pages or other == row + 1 or following[other - 1] != row + 1):
                found |= 2
            out[i] = found


def list_owners(const int32_t[::1] rows, const int32_t[::1] before, int32_t[::1] owner):
    """In ``owner`` -1 is not asked yet, -2 is asked just now."""
    cdef Py_ssize_t n = rows.shape[0], pages = before.shape[0], i
    cdef int32_t row, at, behind, found
    if owner.shape[0] != pages:
        raise ValueError("columns of unequal length")
    for i in range(n):
        if not 0 <= rows[i] < pages:
            raise ValueError("rows out of range")
    with nogil:
        for i in range(n):
            owner[rows[i]] = -1
        for i in range(n):
            row = rows[i]
            if owner[row] != -1:
                continue
            at = row
            while True:
                owner[at] = -2
                behind = before[at]
                if behind <= 0 or behind > pages:
                    found = -behind if behind < 0 else 0
                    break
                behind -= 1
                if owner[behind] == -1:
                    at = behind
                    continue
                found = 0 if owner[behind] == -2 else owner[behind]
                break
            at = row
            while owner[at] == -2:
                owner[at] = found
                behind = before[at]
                if behind <= 0 or behind > pages:
                    break
                at = behind - 1


def list_sums(
    const int32_t[::1] following, const int64_t[::1] first, uint64_t[::1] sums, int64_t nr, uint64_t turn, uint64_t spread
):
    cdef Py_ssize_t pages = following.shape[0], i
    cdef int64_t at, done = 0
    cdef uint64_t x
    if sums.shape[0] != first.shape[0]:
        raise ValueError("columns of unequal length")
    with nogil:
        for i in range(first.shape[0]):
            at = first[i]
            while at > 0:
                if at > pages or done >= nr:
                    done = -1
                    break
                x = <uint64_t>at * turn
                x = (x ^ (x >> 33)) * spread
                sums[i] += x ^ (x >> 29)
                done += 1
                at = following[at - 1]
            if done < 0 or at != -1 - i:
                done = -1
                break
    return done
