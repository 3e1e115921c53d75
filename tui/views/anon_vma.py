"""The interval tree of an anon_vma, drawn and as a table."""

from __future__ import annotations

from dataclasses import dataclass

from inspector.report.anon_vma import AnonVmaReport, Chain
from inspector.snapshot import Snapshot
from tui.views.rows import Rows, words
from tui.views.vmas import vma_place


@dataclass(frozen=True)
class TreeLine:
    """One line of a drawn tree.

    Attributes:
        branch: The lines that lead to it.
        chain: What is there.
        bar: Where its offsets lie among those of the whole tree.
    """

    branch: str
    chain: Chain
    bar: str


def draw_interval_tree(report: AnonVmaReport, width: int = 24) -> list[TreeLine]:
    """The interval tree from its top down, every chain under the one above it, neighbours by their offsets.

    Args:
        report: Of the anon_vma.
        width: Columns of the bars.
    """
    chains = report.tree
    if not chains:
        return []
    low = min(c.first for c in chains)
    span = max(max(c.last for c in chains) - low + 1, 1)
    known = {c.address for c in chains}
    below: dict[int, list[Chain]] = {}
    for chain in chains:
        above = chain.above if chain.above in known and chain.above != chain.address else 0
        below.setdefault(above or 0, []).append(chain)
    out: list[TreeLine] = []
    todo = [("", "", c) for c in reversed(below.pop(0, []))]
    while todo:
        lead, own, chain = todo.pop()
        out.append(TreeLine(lead + own, chain, _bar(chain, low, span, width)))
        lead += {"├─": "│ ", "└─": "  "}.get(own, "")
        children = below.pop(chain.address, [])
        for i, child in reversed(list(enumerate(children))):
            todo.append((lead, "└─" if i == len(children) - 1 else "├─", child))
    # What a damaged tree keeps apart from its top is shown all the same.
    return out + [TreeLine("? ", c, _bar(c, low, span, width)) for rest in below.values() for c in rest]


def _bar(chain: Chain, low: int, span: int, width: int) -> str:
    first = min(max((chain.first - low) * width // span, 0), width - 1)
    last = max(first, min(width - 1, (chain.last - low) * width // span))
    return "·" * first + "█" * (last - first + 1) + "·" * (width - last - 1)


def tree_rows(s: Snapshot, report: AnonVmaReport) -> Rows:
    """The interval tree of an anon_vma, drawn."""
    lines = draw_interval_tree(report)
    chains = [line.chain for line in lines]
    odd = ["" if c.on_list else "! not on its VMA's list" for c in chains]
    for i, c in enumerate(chains):
        if c.subtree_last != c.expected_subtree_last:
            odd[i] = f"! subtree last {c.subtree_last:#x}, must be {c.expected_subtree_last:#x}"
    bounds = [f"{c.start:#x}-{c.end:#x}" if c.start is not None else f"{c.vma:#x}" for c in chains]
    return Rows(
        [
            words("tree", [line.branch + ("○" if line.chain.red else "●") for line in lines]),
            words("where its offsets lie", [line.bar for line in lines], drop=2, shade=lambda _: "heat2"),
            words("offsets", [f"{c.first:#x}-{c.last:#x}" for c in chains]),
            words("process", [f"{c.pid} {c.comm}" if c.pid is not None else "no task" for c in chains]),
            words("VMA", bounds, drop=1),
            words("chain", [f"{c.address:#x}" for c in chains], drop=3),
            words("", odd, shade=lambda _: "fail"),
        ],
        lambda row: vma_place(s, chains[row].vma),
    )
