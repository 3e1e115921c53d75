"""The account of a folio as text."""

from __future__ import annotations

from collections.abc import Iterator

from inspector.folio.counters import CounterLine
from inspector.folio.sharing import SharingRun
from inspector.report import mappings as mapping_view
from inspector.report.explain import Explanation, References
from inspector.report.mappings import NOT_ALLOWED, rejected_words
from inspector.report.pages import render_place
from inspector.report.screen import Screen, TableColumn, render_facts, render_table
from inspector.report.searched import where_searched
from inspector.text import clean, counted, grouped, size

_PLAIN = 100
"""Where formulas are wrapped when there is no terminal to ask."""

_MANY = 24
"""Stretches of pages that are listed before all those that are well become one line."""


def render_explanation(screen: Screen, e: Explanation, *, all_births: bool = False) -> Iterator[str]:
    """The report for people.

    Args:
        screen: Where it is shown.
        e: The report.
        all_births: Whether births that cannot have been are listed too, and the entries that each birth leaves.
    """
    yield from render_place(screen, e.place)
    yield ""
    yield from render_account(screen, e)
    if e.head is None:
        return
    yield from _mappings(screen, e)
    yield from _births(screen, e, everything=all_births)
    yield from _what_if(screen, e)
    yield from _findings(screen, e)


def render_account(screen: Screen, e: Explanation) -> Iterator[str]:
    """What the folio is, its counters, references and what may be done with it: all but mappings and findings."""
    if e.head is None:
        yield from e.about
        return
    yield from _identity(screen, e)
    yield ""
    yield from _heading(screen, "counters")
    folio = [x for x in e.ledger if not x.pages and x.counter != "_refcount"]
    for line in folio:
        yield from _line(screen, line)
    yield from _pages(screen, [x for x in e.ledger if x.pages])
    yield from _slots(screen, e)
    for line in e.ledger:
        if line.counter == "_refcount":
            yield from _line(screen, line)
    if e.references is not None:
        yield from _references(screen, e.references)
    for sentence in e.waiting:
        yield from screen.wrap(sentence, "  ")
    yield from _sharing(screen, e.sharing)
    yield from _decisions(screen, e)


def _heading(screen: Screen, text: str) -> Iterator[str]:
    yield screen.paint("bold", text)


def _identity(screen: Screen, e: Explanation) -> Iterator[str]:
    assert e.head is not None
    what = f"folio {e.head.pfn:#x}, order {e.order}: {counted(e.pages, 'page')}, {size(e.pages * 4096)}, {e.head.kind}"
    yield from _heading(screen, what)
    for sentence in e.about:
        yield from screen.wrap(sentence, "  ")
    total = e.pmd + e.pud + e.pte
    huge = f"{counted(e.pmd, 'PMD')}, " + (f"{counted(e.pud, 'PUD')}, " if e.pud else "")
    words = (
        f"{counted(total, 'entry', 'entries')} ({huge}{counted(e.pte, 'PTE')}) in {counted(e.mms, 'address space')}"
        if total
        else "nothing"
    )
    if e.rejected:
        words += rejected_words(e.rejected)
    searched = where_searched(e.searched, e.gaps)
    words = searched if e.searched == "nothing" else words + searched
    yield from render_facts(
        screen,
        [
            ("flags", " ".join(e.head.flags) or "none"),
            ("mapping", f"{e.head.mapping:#x}"),
            ("mapped by", words),
        ],
        "  ",
    )


_STYLES = {"ok": "green", "WRONG": "fail", "in flight": "yellow", "not checked": "yellow", "": ""}


def _verdict(screen: Screen, verdict: str) -> str:
    padded = f"{verdict or '-':11}"
    return screen.paint(_STYLES[verdict], padded)


def _line(screen: Screen, x: CounterLine, where: str = "") -> Iterator[str]:
    """Verdict and formula; what it means below."""
    beside = Screen(width=(screen.width or _PLAIN) - 15)
    lines = beside.wrap(where + x.formula, hang="    ") or [""]
    yield f"  {_verdict(screen, x.verdict)}  {lines[0]}"
    for more in lines[1:]:
        yield f"  {'':11}  {more}"
    if x.note:
        for more in screen.wrap(x.note, " " * 15 + "  "):
            yield screen.paint("dim", more)


def _span(first: int, pages: int) -> str:
    return f"+{first}" + (f"..+{first + pages - 1}" if pages > 1 else "")


def _pages(screen: Screen, lines: list[CounterLine]) -> Iterator[str]:
    """Counters of single pages; many that are well are one line."""
    well = [x for x in lines if x.verdict == "ok"]
    shown = lines if len(lines) <= _MANY else [x for x in lines if x.verdict != "ok"]
    width = max((len(_span(x.first, x.pages)) for x in shown), default=0)
    for x in shown[: 4 * _MANY]:
        yield from _line(screen, x, f"{_span(x.first, x.pages):{width}}  ")
    if len(shown) > 4 * _MANY:
        yield f"  ... and {grouped(len(shown) - 4 * _MANY)} more stretches of pages"
    if len(lines) > _MANY and well:
        pages = sum(x.pages for x in well)
        where = counted(len(well), "stretch", "stretches")
        yield f"  {_verdict(screen, 'ok')}  _mapcount of {counted(pages, 'page')} in {where}"


def _slots(screen: Screen, e: Explanation) -> Iterator[str]:
    for i in e.mm_ids:
        if not i.mm_id:
            text = f"_mm_id[{i.slot}] is free, _mm_id_mapcount[{i.slot}] = {i.count_raw}"
        elif i.at_most is None:
            text = f"_mm_id[{i.slot}] = {i.mm_id}, _mm_id_mapcount[{i.slot}] + 1 = {i.count_raw + 1}"
        else:
            who = f"pid {i.pid} {i.comm}" if i.pid is not None else "no task"
            text = (
                f"_mm_id_mapcount[{i.slot}] + 1 <= entries of mm id {i.mm_id} ({who}) {i.at_most + 1}, "
                f"stored {i.count_raw + 1}"
            )
        lines = Screen(width=(screen.width or _PLAIN) - 15).wrap(text, hang="    ") or [""]
        yield f"  {_verdict(screen, i.verdict)}  {lines[0]}"
        for more in lines[1:]:
            yield f"  {'':11}  {more}"


_BASIS = {"found": "", "stored": "by its own flags", "inferred": "inferred"}


def _references(screen: Screen, r: References) -> Iterator[str]:
    yield ""
    yield from _heading(screen, f"references: {r.stored}")
    width = max([len(str(r.stored)), *(len(str(x.count)) for x in r.terms)])
    for x in r.terms:
        basis = f" ({_BASIS[x.basis]})" if _BASIS[x.basis] else ""
        shown, more = x.holders[:6], len(x.holders) - 6
        who = "; ".join(shown) + (f"; and {more} more" if more > 0 else "")
        text = f"{x.count:>{width}}  {x.meaning}{basis}" + (f": {who}" if who else "")
        yield from screen.wrap(text, "  ", " " * (width + 6))
    if r.unexplained == 0:
        yield f"  all {r.stored} explained" if r.stored != 1 else "  it is explained"
        return
    n = abs(r.unexplained)
    if r.unexplained > 0:
        words = f"{counted(n, 'reference')} {'is' if n == 1 else 'are'} not explained; candidates:"
    else:
        words = f"{counted(n, 'reference')} fewer than holders were found; perhaps:"
    yield screen.paint("yellow", f"  {words}")
    for sentence in r.candidates:
        yield from screen.wrap(sentence, "    - ", "      ")


def _sharing(screen: Screen, found: list[SharingRun]) -> Iterator[str]:
    if not found:
        return
    yield ""
    yield from _heading(screen, "exclusive (E), maybe shared (s), left over (x)")
    columns = (
        TableColumn("pages"),
        TableColumn("mark"),
        TableColumn("entries", right=True),
        TableColumn("writable", right=True),
        TableColumn("verdict"),
        TableColumn(""),
    )
    shown = found if len(found) <= _MANY else [x for x in found if x.verdict != "ok"]
    rows = [
        (_span(x.first, x.pages), x.mark, str(x.mappings), str(x.writable), x.verdict, x.note)
        for x in shown[: 4 * _MANY]
    ]
    if rows:
        for line in render_table(Screen(width=screen.width), columns, rows, "  "):
            yield line.replace("WRONG", screen.paint("fail", "WRONG"))
    if len(shown) < len(found):
        marks = {m: sum(x.pages for x in found if x.mark == m and x.verdict == "ok") for m in "Esx-"}
        words = ", ".join(f"{n} {m}" for m, n in marks.items() if n)
        yield f"  {counted(len(found) - len(shown), 'stretch', 'stretches')} that agree, in pages: {words}"


def _decisions(screen: Screen, e: Explanation) -> Iterator[str]:
    if not e.decisions:
        return
    yield ""
    yield from _heading(screen, "what the kernel would do now")
    asked = [f"{d.question} {d.pages}".rstrip() for d in e.decisions]
    width, answers = max(map(len, asked)), max(len(d.answer) for d in e.decisions)
    for d, question in zip(e.decisions, asked, strict=True):
        text = f"{question:{width}}  {d.answer:{answers}}  {d.reason} [{d.source}]"
        # Spaces that set the answer under the other ones must not be folded.
        head, rest = text[: width + answers + 4], text[width + answers + 4 :]
        lines = screen.wrap(rest, " " * (len(head) + 2))
        yield f"  {head}{lines[0].lstrip()}"
        yield from lines[1:]


def _mappings(screen: Screen, e: Explanation) -> Iterator[str]:
    if not e.mappings:
        return
    yield ""
    yield from _heading(screen, "mapped by")
    yield from render_table(screen, mapping_view.COLUMNS, [mapping_view.cells(m) for m in e.mappings], "  ")
    more = e.mapping_rows - len(e.mappings)
    if more > 0:
        yield f"  ... and {grouped(more)} more; --limit 0 lists all"


def _births(screen: Screen, e: Explanation, *, everything: bool) -> Iterator[str]:
    """What may have made it; in short those after which the least has happened, and the others by name."""
    able = [b for b in e.births if b.possible]
    if not able:
        return
    yield ""
    yield from _heading(screen, "may have been made by")
    first = [b for b in able if not b.takes_over] or able
    least = min(len(b.since) for b in first)
    shown = able if everything else [b for b in first if len(b.since) == least]
    for b in shown:
        yield from screen.wrap(f"{b.birth} [{b.source}]", "  ", "    ")
        for sentence in b.since:
            yield from screen.wrap(f"since then {sentence}", "      ", "        ")
        for sentence in (f"entry: {b.entry}", b.alike) if everything else ():
            yield from screen.wrap(sentence, "      ", "        ") if sentence else ()
    others = [b for b in e.births if not b.possible]
    if everything:
        yield from _heading(screen, "cannot have been made by")
        for b in others:
            yield from screen.wrap(f"{b.birth} [{b.source}]: {'; '.join(b.against)}", "  ", "      ")
        return
    more = ", ".join(b.birth for b in first if b not in shown)
    if more:
        yield from screen.wrap(f"or, if more has happened since: {more}", "  ", "    ")
    over = " or ".join(b.birth for b in able if b.takes_over and b not in shown)
    if over:
        yield from screen.wrap(f"and may have come from another folio by {over}", "  ", "    ")
    yield f"  {counted(len(others), 'other birth')} cannot have been; --births lists all"


def _what_if(screen: Screen, e: Explanation) -> Iterator[str]:
    columns = (
        TableColumn("what"),
        TableColumn("before", right=True),
        TableColumn(""),
        TableColumn("after", right=True),
    )
    for x in e.what_if:
        yield ""
        yield screen.paint("bold", f"if {x.operation}")
        if x.refused:
            yield from screen.wrap(f"refused: {x.refused}", "  ", "    ")
        if x.note:
            yield from screen.wrap(f"returns {x.note}", "  ", "    ")
        if x.changes:
            rows = [(c.what, c.before, "->" if c.before else "", c.after) for c in x.changes]
            yield from render_table(Screen(width=screen.width), columns, rows, "  ")


def _findings(screen: Screen, e: Explanation) -> Iterator[str]:
    yield ""
    for f in e.findings:
        grade = f.severity.upper() if f.severity != "info" else "info"
        yield f"{screen.paint('fail' if f.severity == 'fail' else 'yellow', grade)}  {f.rule}"
        yield from screen.wrap(f.title.rstrip(".") + ".", "  ")
        if f.evidence.also:
            yield from screen.wrap(f"with it: {', '.join(f.evidence.also)}", "  ")
        if f.diagnosis is not None:
            yield from screen.wrap(f"diagnosis: {f.diagnosis.verdict}", "  ")
            for reason in f.diagnosis.because:
                yield from screen.wrap(f"- {clean(reason)}", "    ", "      ")
    for sentence in e.looks_like:
        yield from screen.wrap(f"looks like: {sentence}", "", "    ")
    wrong = sum(x.verdict == "WRONG" for part in (e.ledger, e.mm_ids, e.sharing) for x in part)
    if wrong or e.findings or e.rejected:
        numbers = ((wrong, "difference", ""), (len(e.findings), "finding", ""), (e.rejected, *NOT_ALLOWED))
        parts = [counted(n, *word) for n, *word in numbers if n]
        yield f"verdict  {screen.paint('fail', ' and '.join(parts))}"
    elif e.exit_code:
        yield "verdict  nothing wrong found, but data is missing"
    elif e.searched == "nothing":
        yield "verdict  none: its mappings were not searched for, so that stored values were compared with nothing"
    else:
        yield "verdict  consistent"
    if not e.rules_run and e.searched != "all page tables":
        yield from screen.wrap("The rules were not run: they need all page tables; --all runs them.")
