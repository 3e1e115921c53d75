"""One small function a rule: what the page tables say, what the model expects and what the kernel stored, compared."""

from inspector.rules import (
    anon_rmap,
    compound,
    entire,
    file_rmap,
    free_pages,
    hugetlb,
    mapcount,
    mm_ids,
    page_tables,
    pages_mapped,
    refcount,
    rss,
    targets,
    vmas,
)
from inspector.rules.registry import Rule, Violations, all_rules, find_rule, select_rules

__all__ = [
    "Rule",
    "Violations",
    "all_rules",
    "anon_rmap",
    "compound",
    "entire",
    "file_rmap",
    "find_rule",
    "free_pages",
    "hugetlb",
    "mapcount",
    "mm_ids",
    "page_tables",
    "pages_mapped",
    "refcount",
    "rss",
    "select_rules",
    "targets",
    "vmas",
]
