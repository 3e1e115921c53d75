"""The jump dialog: type what you have in hand, choose what it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import Worker, WorkerState

from inspector.text import clean
from tui.places import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tui.jump import Goal
    from tui.session import Session

_HINT = "pfn 0x33ab · address 0xffff… · pid 203 · 203:0x7fcc8d947000 · name or path · #1 · rule"


class JumpScreen(ModalScreen[Place | None]):
    """Offers places as one types; Enter takes the first, arrows choose another.

    Args:
        session: The target.
        recent: Places that were gone to, the last one first, each with its name; "" for what the session calls it.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Close"),
        Binding("down", "choose(1)", "Next", show=False, priority=True),
        Binding("up", "choose(-1)", "Previous", show=False, priority=True),
    ]

    def __init__(self, session: Session, recent: Sequence[tuple[Place, str]] = ()) -> None:
        super().__init__()
        self._session = session
        self._recent = recent
        self._goals: list[Goal] = []
        self._asked = ""
        self._eager = False

    def compose(self) -> ComposeResult:
        """A line and what it may mean."""
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Jump to"
            line = Input(id="jump", placeholder=_HINT, compact=True)
            line.cursor_blink = False
            yield line
            yield OptionList(id="goals")
            yield Static("", id="jump-note", classes="quiet")

    def on_mount(self) -> None:
        """Offer recent places and the screens."""
        self.query_one("#goals").can_focus = False
        self._look_up("")

    def on_input_changed(self, event: Input.Changed) -> None:
        """Offer what the words may mean."""
        self._look_up(event.value)

    def _look_up(self, words: str) -> None:
        self._asked, self._eager = words, False
        session = self._session

        def work() -> list[Goal]:
            from tui.jump import Goal, goals  # noqa: PLC0415

            with session.lock:
                found = goals(session, words)
                if words.strip():
                    return found
                return [*(Goal(place, "recent", name or session.crumb(place)) for place, name in self._recent), *found]

        self.run_worker(work, name=f"jump {words}", group="jump", thread=True, exclusive=True, exit_on_error=False)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Show what was found, when it is still asked for."""
        if event.worker.name != f"jump {self._asked}":
            return
        note = self.query_one("#jump-note", Static)
        if event.state is WorkerState.ERROR:
            note.update(Content.styled(clean(str(event.worker.error)), "$error"))
        elif event.state is WorkerState.SUCCESS:
            self._goals = event.worker.result or []
            options = self.query_one("#goals", OptionList)
            options.clear_options()
            options.add_options([Option(_line(goal)) for goal in self._goals])
            options.highlighted = 0 if self._goals else None
            note.update("" if self._goals else "nothing of this target has that name or number")
            if self._eager and self._goals:
                self._take(0)
        else:
            note.update("looking…")

    def on_input_submitted(self) -> None:
        """Go to the one chosen; what is still being looked up is gone to when it is found."""
        at = self.query_one("#goals", OptionList).highlighted
        if at is None or not self._goals:
            self._eager = True
            return
        self._take(at)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """A click."""
        self._take(event.option_index)

    def action_choose(self, step: int) -> None:
        """Another of the places."""
        options = self.query_one("#goals", OptionList)
        if self._goals:
            options.highlighted = ((options.highlighted or 0) + step) % len(self._goals)

    def _take(self, index: int) -> None:
        self.dismiss(self._goals[index].place)


def _line(goal: Goal) -> Content:
    return Content.assemble((f"{goal.what:<17} ", "$quiet"), clean(goal.text))
