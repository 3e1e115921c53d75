"""The application: places, a history like a browser's, the check that runs behind it, and keys that work everywhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App, ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.events import Event, Key, MouseDown, MouseScrollDown, MouseScrollUp
from textual.filter import LineFilter, Monochrome, NoColor
from textual.screen import ModalScreen
from textual.worker import Worker, WorkerState, get_current_worker

from inspector.errors import TargetError
from inspector.text import counted
from tui.colors import DARK, DEPTHS, LIGHT, TRUE, Inks
from tui.driver import joining_styles
from tui.garbage import Garbage
from tui.palette import PaletteCommands
from tui.places import (
    FindingsPlace,
    FoliosPlace,
    MemoryPlace,
    OverviewPlace,
    Place,
    ProcessesPlace,
    SubjectsPlace,
    UserPlace,
)
from tui.screens.base import PlaceScreen, ReportText, known
from tui.screens.registry import prepare, screen_for
from tui.session import Session, StoppedError
from tui.state import State
from tui.widgets.column_table import ColumnTable
from tui.widgets.frame import Crumbs, Notice, Status, TopBar, Working, bar

if TYPE_CHECKING:
    from textual.driver import Driver
    from textual.screen import Screen

    from tui.screens.export import ExportChoice

_REMEMBERED = 50
"""Screens kept alive for going back; older ones are built again."""

_RECENT = 8
"""Places that the jump dialog offers before anything is typed."""

_TICK = 0.1

_TWICE = 2.0
"""Seconds within which a second Ctrl+C ends it."""

_NARROW = 60
"""Columns below which the verdict is in fewer words."""

AnyScreen = PlaceScreen[Any]


class FolioscopeApp(App[Exception]):
    """Browses one target; ends with the error that kept it from opening the target, if there was one.

    Args:
        session: The target with its check.
        start: Where to begin.
        interval: Seconds between two readings of a target that runs on; 0 for readings on demand.
        asked: Words for a place, as the jump dialog takes them, to go to as soon as they can be looked up.
    """

    CSS_PATH = "folioscope.tcss"
    TITLE = "folioscope"
    COMMANDS = {PaletteCommands}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1,o", "go_to('overview')", "Overview", show=False),
        Binding("2", "go_to('findings')", "Findings", show=False),
        Binding("3,p", "go_to('processes')", "Processes", show=False),
        Binding("4", "go_to('folios')", "Folios", show=False),
        Binding("5,m", "go_to('memory')", "Memory map", show=False),
        Binding("6", "go_to('subjects')", "More: CPUs, files, swap ...", show=False),
        Binding("g", "jump", "Jump"),
        Binding("backspace,left_square_bracket,alt+left", "back", "Back", key_display="⌫"),
        Binding("right_square_bracket,alt+right", "forward", "Forward", show=False),
        Binding("e", "export", "Export", show=False),
        Binding("D", "prompt", "drgn prompt", show=False),
        Binding("c", "copy_command", "Copy command", show=False),
        Binding("r", "refresh", "Read again", show=False),
        Binding("question_mark,f1", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+z", "suspend_process", "To the shell; fg comes back", show=False),
    ]

    def get_driver_class(self) -> type[Driver]:
        """Textual's driver of this platform, which sends fewer bytes."""
        return joining_styles(super().get_driver_class())

    def __init__(self, session: Session, start: Place | None = None, *, interval: float = 0, asked: str = "") -> None:
        super().__init__()
        self._asked = asked
        self._state = State("interface")
        self.session = session
        self.history: list[tuple[Place, AnyScreen | None]] = []
        self.at = -1
        self.filters: list[str] = []
        self._start = start or OverviewPlace()
        self._interval = interval
        self._garbage = Garbage()
        self._interrupted = -_TWICE
        self._generation = session.generation
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = LIGHT.name if self._state.text("theme") == LIGHT.name else DARK.name
        self._inks = NoColor() if self.no_color else Inks(DEPTHS.get(self.console.color_system or "", TRUE))

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Colours of this terminal, or none."""
        return [*(f for f in super().get_line_filters() if not isinstance(f, Monochrome)), self._inks]

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Inks that the style sheet names, for themes that do not define them."""
        return {"quiet": "#8b97a8", "faint": "#566273"}

    def compose(self) -> ComposeResult:
        """What is seen until the first place is: tables and rules take a moment to import."""
        yield TopBar(id="top")
        yield Working("opening", id="working")

    def on_mount(self) -> None:
        """Go to the first place, then begin to check."""
        self.session.closed, self.session.awaits_check = False, self.session.report is None
        self._garbage.begin()
        if self.session.opened is None:
            self.run_worker(self._prepare, name="check", thread=True, group="prepare", exit_on_error=False)
        else:
            self._begin()

    def _prepare(self) -> None:
        prepare()
        self.call_from_thread(self._begin)

    def _begin(self) -> None:
        self.go(self._start)
        self.set_interval(_TICK, self._tick)
        if self._asked:
            self.run_worker(self._find_asked, name="asked", thread=True, group="find", exit_on_error=False)
        if self._interval:
            self.set_interval(self._interval, self._look_again)
        if self.session.report is None:
            self.call_after_refresh(self.check)

    async def on_event(self, event: Event) -> None:
        """Let the check rest while a key is answered."""
        if isinstance(event, (Key, MouseDown, MouseScrollDown, MouseScrollUp)):
            self.session.answer()
            self._garbage.key(time.monotonic())
        await super().on_event(event)

    # The check behind the screens

    def check(self) -> None:
        """Run every rule in a worker."""
        self.run_worker(self.session.check, name="check", thread=True, group="check", exit_on_error=False)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """A target that cannot be opened ends the application; a check that fails later is reported."""
        if event.worker.name not in ("check", "refresh", "export") or event.state is not WorkerState.ERROR:
            return
        error = event.worker.error
        if isinstance(error, StoppedError) or not isinstance(error, Exception):
            return
        if self.session.opened is None:
            self.exit(error)
        else:
            self.complain(error)

    def on_unmount(self) -> None:
        """Nothing is read any more once the interface is gone."""
        self.session.closed = True
        self._garbage.end()

    def complain(self, error: BaseException | None) -> None:
        """Report an error without losing the screen: on it, where it stays."""
        screen = self.current
        if screen is not None and screen.query(Notice):
            screen.query_one(Notice).show(known(error))
        else:
            self.notify(known(error), severity="error", markup=False, timeout=10)

    def _tick(self) -> None:
        self._garbage.at(time.monotonic())
        screen = self.current
        if screen is None or not screen.query(TopBar):
            return
        if self.session.generation != self._generation:
            self._generation = self.session.generation
            self.dress(screen)
            screen.session_changed()
        screen.query_one(TopBar).status = self.status

    @property
    def current(self) -> AnyScreen | None:
        """The place on the screen, also behind a dialog."""
        return self.history[self.at][1] if self.at >= 0 else None

    @property
    def status(self) -> Status:
        """What is known about the target, in few words."""
        session = self.session
        worst = max((["info", "warn", "fail"].index(f.severity) for f in session.findings), default=0)
        nr = sum(f.severity != "info" for f in session.findings)
        words = f"{nr} finding{'s' * (nr != 1)}"
        if session.doing is not None:
            what, done, steps = session.doing
            return (f"{'✗ ' + words + '  ' if nr else ''}{what} {bar(done, steps)} {done}/{steps}", "busy")
        if session.report is None:
            return ("not checked" if session.failed is None else "check not finished", "warn")
        if nr:
            return (f"✗ {words}", "fail" if worst == 2 else "warn")
        if session.report.exit_code:
            missing = "data missing"
            return (f"~ {missing}" if self.size.width < _NARROW else f"~ nothing wrong found, {missing}", "warn")
        return ("✓ consistent", "ok")

    # Places

    def go(self, place: Place) -> None:
        """Show a place; what lay ahead in the history is forgotten."""
        if isinstance(place, UserPlace):
            self.run_worker(lambda: self._find(place), name="find", thread=True, group="find", exit_on_error=False)
            return
        if self.at >= 0 and self.history[self.at][0] == place:
            return
        for _, screen in self.history[self.at + 1 :]:
            self._forget(screen)
        del self.history[self.at + 1 :]
        self.history.append((place, None))
        self.session.went_to(place)
        self._turn_to(len(self.history) - 1)

    def _find(self, place: UserPlace) -> None:
        """Go to a place that is known by its addresses; in a worker, for all mms may have to be read for it."""
        found = self.session.rows_of_place(place)
        if found is None:
            gone = TargetError("this process is not there any more")
            self.call_from_thread(self.complain, gone)
        else:
            self.call_from_thread(self.go, found)

    def _find_asked(self) -> None:
        """Go to the place that was asked for on the command line, when what names it is read."""
        from tui.jump import goals  # noqa: PLC0415

        worker = get_current_worker()
        self.session.wait_for_tables(lambda: worker.is_cancelled)
        with self.session.lock:
            found = goals(self.session, self._asked)
        if found:
            self.call_from_thread(self.go, found[0].place)
        else:
            self.call_from_thread(self.complain, TargetError("nothing of this target is called so", self._asked))

    def dress(self, screen: Screen[Any]) -> None:
        """Put the way here and the status into the frame of a screen."""
        if not isinstance(screen, PlaceScreen) or not screen.query(TopBar) or screen is not self.current:
            return
        names = [self.session.name]
        steps = [(self.session.crumb(place), i) for i, (place, _) in enumerate(self.history[: self.at + 1])]
        screen.query_one(Crumbs).show(names[0], steps, ahead=self.at + 1 < len(self.history))
        screen.query_one(TopBar).status = self.status

    def _turn_to(self, index: int) -> None:
        place, screen = self.history[index]
        if screen is None:
            screen = screen_for(self.session, place)
            self.history[index] = place, screen
            self.install_screen(screen, f"place-{id(screen)}")
        first = self.at < 0
        self.at = index
        if first:
            self.push_screen(screen)
        else:
            self.switch_screen(screen)
        old = index - _REMEMBERED
        if old >= 0 and self.history[old][1] is not None:
            self._forget(self.history[old][1])
            self.history[old] = self.history[old][0], None

    def _forget(self, screen: AnyScreen | None) -> None:
        if screen is not None and screen is not self.screen:
            self.uninstall_screen(screen)
            screen.remove()

    def action_turn_to(self, index: int) -> None:
        """To a place in the history."""
        if 0 <= index < len(self.history) and index != self.at:
            self._turn_to(index)

    def go_back(self) -> None:
        """To the place before."""
        self.action_turn_to(self.at - 1)

    async def action_back(self) -> None:
        """To the place before."""
        self.go_back()

    def action_forward(self) -> None:
        """To the place after."""
        self.action_turn_to(self.at + 1)

    def action_go_to(self, name: str) -> None:
        """To one of the places that have a tab."""
        places: dict[str, Place] = {
            "overview": OverviewPlace(),
            "findings": FindingsPlace(),
            "processes": ProcessesPlace(),
            "memory": MemoryPlace(),
            "folios": FoliosPlace(),
            "subjects": SubjectsPlace(),
        }
        self.go(places[name])

    # What works everywhere

    def action_copy_command(self) -> None:
        """Copy the command that shows the same."""
        if self.at < 0 or self.session.opened is None:
            return
        command = self.session.command(self.history[self.at][0])
        if command:
            self.copy_to_clipboard(command)
        self.notify(command or "no command shows this", title="Copied" if command else "", markup=False)

    def action_refresh(self) -> None:
        """Read a target again that runs on."""
        if self.session.opened is None or self.session.doing is not None:
            return
        if not self.session.is_live:
            self.notify("a dump does not change")
            return
        self.run_worker(self._refresh, name="refresh", thread=True, group="check", exit_on_error=False)

    def _look_again(self) -> None:
        if self.session.is_live and self.session.doing is None:
            self.action_refresh()

    def _refresh(self) -> None:
        places = self.session.refresh([place for place, _ in self.history])
        self.call_from_thread(self._replace, places)
        self.session.check()

    def _replace(self, places: list[Place | None]) -> None:
        """The same places in what was read anew; screens of things that are gone say so when they are gone to."""
        for i, new in enumerate(places[: len(self.history)]):
            old, screen = self.history[i]
            self.history[i] = new or old, screen
            if screen is not None:
                screen.place, screen.stale = new or old, True
                screen.gone = new is None
        if self.current is not None:
            self.current.reload()

    def action_toggle_check(self) -> None:
        """Stop the check, or run it."""
        if self.session.doing is not None:
            self.session.stop()
        elif self.session.report is None:
            self.check()
        else:
            self.notify("the check is done")

    def action_toggle_dark(self) -> None:
        """The other theme."""
        self.theme = LIGHT.name if self.current_theme.dark else DARK.name
        self._state.keep("theme", self.theme)

    def order_of(self, table: str) -> str:
        """The order in which a table was last shown: a column, after ``-`` for the largest first; "" for none."""
        return self._state.text(f"order {table}")

    def keep_order(self, table: str, order: str) -> None:
        """Remember it, for other runs as well."""
        self._state.keep(f"order {table}", order)

    def choose_order(self, table: ColumnTable) -> None:
        """Ask for the column to sort a table by."""
        from tui.screens.sort import SortScreen  # noqa: PLC0415

        def chosen(column: int | None) -> None:
            if column is None or table.rows is None:
                return
            title = table.rows.columns[column].title
            turned = table.order.removeprefix("-") == title
            table.sort_by(column, descending=not table.order.startswith("-") if turned else None)

        if table.rows is not None:
            self._ask(SortScreen([c.title for c in table.rows.columns], table.order), chosen)

    def ask_note(self, key: str, about: str, written: Callable[[], None]) -> None:
        """Ask for a note about a finding or the dump.

        Args:
            key: As of `Session.note`.
            about: What it is about, in words.
            written: Called when there is another note.
        """
        from tui.screens.note import NoteScreen  # noqa: PLC0415

        def answered(text: str | None) -> None:
            if text is not None:
                self.session.write_note(key, text)
                written()

        self._ask(NoteScreen(about, self.session.note(key)), answered)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What does nothing is not offered."""
        match action:
            case "back":
                return self.at > 0
            case "forward":
                return self.at + 1 < len(self.history)
            case "refresh":
                return self.session.is_live
            case _:
                return True

    def action_prompt(self) -> None:
        """Drgn's prompt, the object at hand bound; folioscope comes back when it is left."""
        if self.at < 0 or self.session.opened is None:
            return
        bound = self.session.bound(self.history[self.at][0])
        try:
            with self.suspend():
                self.session.prompt(bound)
        except SuspendNotSupported:
            self.complain(TargetError("there is no terminal for a prompt of drgn"))
        self.refresh(layout=True)

    def action_help_quit(self) -> None:
        """Ctrl+C: twice ends it, wherever one is."""
        now = time.monotonic()
        if now - self._interrupted < _TWICE:
            self.exit()
        else:
            self.notify("once more ends folioscope", title="Ctrl+C", timeout=_TWICE)
        self._interrupted = now

    def action_jump(self) -> None:
        """Ask where to."""
        from tui.screens.jump import JumpScreen  # noqa: PLC0415

        def jumped(place: Place | None) -> None:
            if place is not None:
                self.go(place)

        here = self.history[self.at][0] if self.at >= 0 else None
        been = dict.fromkeys(place for place, _ in reversed(self.history))
        recent = [(place, "") for place in been if place != here][:_RECENT]
        # Of earlier runs; those of this run are known by their names already.
        names = {self.session.crumb(place) for place in been}
        recent += [one for one in self.session.places_kept() if one[1] not in names]
        self._ask(JumpScreen(self.session, recent[:_RECENT]), jumped)

    def action_help(self) -> None:
        """Explain the screen at hand."""
        from tui.screens.help import RUNS_ON, HelpScreen, keys_of  # noqa: PLC0415

        screen = self.current
        if screen is not None and screen is self.screen:
            title = self.session.crumb(screen.place) if self.session.opened else screen.place.title
            words = screen.HELP + (RUNS_ON if self.session.is_live else "")
            self.push_screen(HelpScreen(title, words, keys_of(screen)))

    def action_export(self) -> None:
        """Ask what to write and where, then write it."""
        from tui.screens.export import ExportScreen  # noqa: PLC0415

        screen = self.current
        if screen is None or self.session.opened is None:
            return
        table, written = screen.exported(), screen.written()
        forms = [
            *(["csv", "json"] if table is not None else []),
            *(["txt", "report.json"] if written is not None else []),
            "svg",
        ]

        def chosen(choice: ExportChoice | None) -> None:
            if choice is not None:
                self.call_after_refresh(self._export, choice, table, written)

        self._ask(ExportScreen(forms, f"{self.session.name}-{self.session.crumb(screen.place)}"), chosen)

    def _export(self, choice: ExportChoice, table: ColumnTable | None, written: ReportText | None) -> None:
        from tui.export import write_report, write_table, write_text  # noqa: PLC0415

        path, form = choice.path, choice.form
        picture = self.export_screenshot() if form == "svg" else ""

        def work() -> None:
            words = str(path)
            if picture:
                write_text(picture, path)
            elif form in ("txt", "report.json") and written is not None:
                write_report(written.render, written.report, path, "txt" if form == "txt" else "json")
            elif table is not None and table.rows is not None:
                nr = write_table(table.rows, path, "csv" if form == "csv" else "json")
                words = f"{counted(nr, 'row')} in {path}"
            self.call_from_thread(self.notify, words, title="Exported", markup=False)

        self.run_worker(work, name="export", thread=True, group="export", exit_on_error=False)

    def _ask(self, dialog: ModalScreen[Any], answered: Callable[[Any], None]) -> None:
        """Open a dialog, unless one is open."""
        if self.current is self.screen:
            self.push_screen(dialog, answered)

    def _handle_exception(self, error: Exception) -> None:
        """A fault of ours ends the application with one line instead of a traceback over the terminal."""
        if self.is_headless:
            super()._handle_exception(error)
        else:
            self.exit(error)
