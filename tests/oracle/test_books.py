"""Every rebuilt counter of the small guest of two nodes beside the stored one, memory cgroups one by one."""

from __future__ import annotations

import pytest

from tests.fixtures import KERNELS
from tests.guests.books import Book, books_of
from tests.guests.cache import dump_path


@pytest.mark.guest
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_counter_is_what_it_must_be(kernel: str) -> None:
    books = books_of(dump_path(kernel, "numa"))
    assert [book for book in books if book.different or book.slop] == []
    assert all(book.equal == book.compared for book in books)
    assert sum(book.compared for book in books) > 50
    names = {book.of for book in books}
    assert {"node 0", "node 1", "memcg /", "memcg /even on node 0", "memcg /odd on node 1"} <= names
    removed = [book for book in books if "removed" in book.remarks]
    # From 7.x on the folios of a memory cgroup go to its parent when it is removed.
    assert len(removed) == (0 if kernel == "7.3" else 1)


def test_a_counter_that_is_off_is_named() -> None:
    book = Book("node 0")
    book.add("NR_SHMEM", 3, 3)
    book.add("NR_FILE_PAGES", 3, 4)
    book.add("NR_PAGETABLE", 3, 2, may_differ=True)
    assert (book.compared, book.equal, book.slop, book.different) == (3, 1, 1, 1)
    assert "NR_FILE_PAGES: rebuilt 3, stored 4" in book.remarks
