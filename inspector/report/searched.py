"""Where the mappings of a folio were searched for, in words, and what more there is to search."""

from __future__ import annotations

from inspector.snapshot import Search


def where_searched(search: Search, gaps: list[str]) -> str:
    """What follows "3 mappings in 2 address spaces": how they were found, what that leaves open.

    Args:
        search: Where they were searched for.
        gaps: Why the search does not lead to everything that it should lead to.
    """
    but = f"; incomplete: {'; '.join(gaps)}" if gaps else ""
    if search == "nothing":
        return f"not searched for{': ' if gaps else ''}{'; '.join(gaps)}; --all walks all page tables"
    if search == "reverse map":
        return f", found by its reverse map{but}; --all walks all page tables"
    return f", counted over all page tables{but}"
