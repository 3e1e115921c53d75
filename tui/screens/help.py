"""Help for the screen at hand: what it shows, and the keys that work on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Markdown, Static

if TYPE_CHECKING:
    from textual.screen import Screen

_NAMES = {
    "question_mark": "?",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "comma": ",",
    "slash": "/",
    "plus": "+",
    "minus": "-",
    "equals_sign": "=",
    "full_stop": ".",
    "backspace": "⌫",
}


_WORDS = {
    "Copy selected text": "Copy what is selected; twice ends folioscope",
    "Focus Next": "To the next part of the screen",
    "Focus Previous": "To the part before",
    "Scroll Home": "First",
    "Scroll End": "Last",
    "Scroll Up": "Up",
    "Scroll Down": "Down",
    "Page Up": "Page up",
    "Page Down": "Page down",
    "palette": "Every command, by its name",
}
"""What Textual's own keys do, in the words of the others."""

_SIDEWAYS = {"Scroll Left", "Scroll Right", "Page Left", "Page Right"}
"""Keys of Textual's that have nothing to do where nothing is wider than its part of the screen."""

_FOCUS = {"Focus Next", "Focus Previous"}
_SEVERAL = 2


RUNS_ON = """
The kernel runs on: `r` reads it again. What changed since is marked `↑`, `↓` or `~`, a new row `+`.
"""
"""What is added where the target is a running kernel."""


class HelpScreen(ModalScreen[None]):
    """The screen's own keys, its text, and the keys that work on others, too.

    Args:
        title: Of the screen.
        text: Markdown.
        keys: Key, what it does, and whether it is this screen's own.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,f1,q", "dismiss(None)", "Close"),
    ]

    def __init__(self, title: str, text: str, keys: list[tuple[str, str, bool]]) -> None:
        super().__init__()
        self._title, self._text, self._keys = title, text, keys

    def compose(self) -> ComposeResult:
        """One page that scrolls."""
        with VerticalScroll(classes="dialog") as dialog:
            dialog.border_title = f"Help: {self._title}"
            dialog.border_subtitle = "esc closes"
            width = max((len(key) for key, _, _ in self._keys), default=0) + 2
            here, rest = self._lines(width, own=True), self._lines(width, own=False)
            if here:
                yield Static(Content("\n").join([*here, Content("")]))
            yield Markdown(self._text)
            yield Static(Content("\n").join([Content.styled("In lists, and on every screen", "bold"), *rest]))

    def _lines(self, width: int, *, own: bool) -> list[Content]:
        keys = [(key, what) for key, what, mine in self._keys if mine == own]
        return [Content.assemble((key.ljust(width), "bold $accent"), what) for key, what in keys]


def keys_of(screen: Screen[Any]) -> list[tuple[str, str, bool]]:
    """Keys that work on a screen now, the nearest first, each with what it does and whether it is the screen's own."""
    own = {binding.action for binding in vars(type(screen)).get("BINDINGS", ()) if isinstance(binding, Binding)}
    out: dict[tuple[str, bool], list[str]] = {}
    for active in screen.active_bindings.values():
        binding = active.binding
        if binding.description in _SIDEWAYS and not getattr(active.node, "allow_horizontal_scroll", False):
            continue
        if binding.description in _FOCUS and len(screen.focus_chain) < _SEVERAL:
            continue
        what = _WORDS.get(binding.description, binding.description)
        if what and not binding.system and active.enabled:
            mine = active.node is screen and binding.action in own
            out.setdefault((what, mine), []).append(_NAMES.get(binding.key, binding.key))
    return [(" ".join(dict.fromkeys(keys)), what, mine) for (what, mine), keys in out.items()]
