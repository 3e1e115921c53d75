"""``python -m tests.tui.evening FOLDER -- -c CORE``: an evening at a terminal, spent by somebody who tries everything.

On a pseudo-terminal every screen is gone to, its help is read, and every key that the help lists is pressed there. What
is to be looked into is printed: a screen that shows nothing or a failure, a key that does nothing, a line that is cut,
a program that ends. FOLDER gets what every screen and every key showed, as text and with ``--pages`` in HTML.

Words behind ``--`` are for ``folioscope tui``: ``-- -c CORE``, ``-- --qemu SOCKET``.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.terminal import Terminal
from tests.tui.drawn import Drawn
from tui.views.subjects import SUBJECTS

SIZES = ("80x24", "40x10", "200x60")

SCREENS: dict[str, tuple[str, ...]] = {
    "overview": ("1",),
    "findings": ("2",),
    "finding": ("2", "enter"),
    "rule": ("=mapcount-too-low",),
    "processes": ("3",),
    "mm": ("3", "enter"),
    "vma": ("3", "enter", "enter"),
    "folios": ("4",),
    "folio": ("4", "enter"),
    "rmap": ("4", "enter", "x"),
    "anon_vma": ("4", "enter", "a"),
    "memory": ("5",),
    "more": ("6",),
    **{name: (f"={name}",) for name in SUBJECTS},
    "file": ("=files", "enter"),
    "file of a folio": ("4", "/file mapped>0\r", "enter", "i"),
    "slot": ("=swap", "enter"),
}
"""By name: the keys that lead there; ``=words`` are given to the jump dialog."""

_ALSO = {
    "escape": b"\x1b",
    "esc": b"\x1b",
    "tab": b"\t",
    "shift+tab": b"\x1b[Z",
    "f1": b"\x1bOP",
    "ctrl+z": b"\x1a",
    "ctrl+p": b"\x10",
    "alt+left": b"\x1b[1;3D",
    "alt+right": b"\x1b[1;3C",
    "⌫": b"\x7f",
    "→": b"\x1b[C",
    "←": b"\x1b[D",
    "space": b" ",
}
_LEFT_OUT = {"q", "ctrl+z", "ctrl+q", "D"}
"""Keys that leave it; `tests/tui/test_terminal.py` presses them."""

_MOVES = {"up", "down", "left", "right", "pageup", "pagedown", "home", "end", "j", "k", "→", "←", "[", "]"}
"""Keys that have nothing to do where there is nothing more on their side."""

_BUSY = ("gives up and goes back",)
_WRONG = ("Traceback", "unexpected", "This cannot be shown", "this cannot be shown", "Error:", "NaN", "None")
_DIALOG = re.compile("╭─ (Help: |Export ─|Jump to|Sort by|Note ─)|Search for commands")
_KEYS_LINE = re.compile(r"^(\S+(?: \S+)*?) {2,}(\S.*)$")


class Evening:
    """One run.

    Args:
        words: For ``folioscope tui``.
        size: Columns and lines.
        folder: What is shown goes there.
        pages: Whether in HTML, too.
        term: The terminal's kind.
        own: Whether only keys are pressed that are the screen's own.
    """

    def __init__(  # noqa: PLR0913
        self, words: Sequence[str], size: tuple[int, int], folder: Path, *, pages: bool, term: str, own: bool
    ) -> None:
        self._size, self._folder, self._pages, self._own = size, folder, pages, own
        self.noted: list[str] = []
        self._began = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["TERM"] = term
        self._terminal = Terminal([sys.executable, "-P", "-m", "inspector", "tui", *words], size, term)
        self._drawn, self._fed = Drawn(size), 0

    def lines(self) -> list[str]:
        """What stands on the terminal."""
        self._drawn.feed(self._terminal.seen[self._fed :])
        self._fed = len(self._terminal.seen)
        return self._drawn.text()

    def note(self, where: str, what: str) -> None:
        """Something to be looked into."""
        line = f"{where}: {what}"
        if line not in self.noted:
            self.noted.append(line)
            print(line, flush=True)

    def keep(self, name: str) -> None:
        """Write down what is shown."""
        stem = self._folder / re.sub(r"[^\w.+-]+", "_", name)
        stem.with_suffix(".txt").write_text("\n".join(self.lines()) + "\n", "utf-8")
        if self._pages:
            stem.with_suffix(".html").write_text(self._drawn.page(), "utf-8")

    def until_quiet(self, seconds: float = 60.0) -> None:
        """Wait until nothing is being loaded."""
        end = time.monotonic() + seconds
        while any(word in line for line in self.lines() for word in _BUSY):
            self._terminal.settle(0.2)
            if time.monotonic() > end:
                self.note("waiting", f"still busy after {seconds:.0f} s: {self.lines()[:4]}")
                return

    def press(self, key: str, quiet: float = 0.25) -> None:
        """One key, and wait for what it does."""
        name = next((n for n, sent in _ALSO.items() if n == key), None)
        self._terminal.press((_ALSO[name].decode() if name else key), 0.05)
        self._terminal.until_idle(quiet)
        self.until_quiet()

    def go(self, keys: Sequence[str]) -> None:
        """To a screen."""
        for key in keys:
            if key[0] == "=":
                self.press("g")
                self._terminal.press(key[1:], 0.05)
                self._terminal.until_idle(0.4)
                self.press("enter", 0.4)
            else:
                self.press(key, 0.4)

    def dialog(self) -> bool:
        """Whether a dialog is open."""
        return any(_DIALOG.search(line) for line in self.lines())

    def help(self, where: str) -> list[tuple[str, str]]:
        """Keys of the help, with what each does."""
        found: dict[str, str] = {}
        self.press("?")
        before: list[str] = []
        nr = 0
        while (now := self.lines()) != before and nr < 60:
            self.keep(f"{where} help {nr}")
            left = next((line.index("╭─ Help") + 2 for line in now if "╭─ Help" in line), None)
            for line, cells in zip(now, self._drawn.cells, strict=True):
                match = None if left is None else _KEYS_LINE.match(re.split(" *[│▁-█▔-▟]", line[left:])[0])
                # Keys are bold, what they do is not.
                if match and left is not None and cells[left][1].bold and not cells[left + match.start(2)][1].bold:
                    for key in match[1].split():
                        found.setdefault(key, match[2])
            before, nr = now, nr + 1
            if self._own:
                break
            self.press("pagedown", 0.2)
        self.press("escape", 0.4)
        if not found and not self._own:
            self.note(where, "no keys in its help")
        return list(found.items())

    def back_to(self, crumb: str, keys: Sequence[str]) -> None:
        """Leave dialogs and places that a key led to."""
        for _ in range(4):
            if self.lines()[1] == crumb and not self.dialog():
                return
            self.press("escape" if self.dialog() else "[", 0.3)
        if self.lines()[1] != crumb:
            self.go(keys)

    def look(self, where: str) -> None:
        """What is wrong with what is shown."""
        shown = self.lines()
        for line in shown:
            for word in _WRONG:
                if word in line:
                    self.note(where, f"shows {word}: {line.strip()}")
        body = [line for line in shown[2:-1] if line.strip()]
        if not body:
            self.note(where, "shows nothing")
        if "…" in shown[0]:
            self.note(where, f"the first line is cut: {shown[0]}")
        if self._terminal.gone():
            raise SystemExit(f"{where}: the program ended\n" + "\n".join(shown))

    def evening(self, only: Sequence[str]) -> None:
        """All screens and all keys."""
        self._terminal.wait_for(b"Overview" if self._size[0] >= 80 else b"1")
        while not any(word in self.lines()[0] for word in ("consistent", "finding", "not", "data missing")) or (
            "/" in self.lines()[0]
        ):
            self._terminal.settle(0.5)
            if self._terminal.gone():
                raise SystemExit("it ended: " + self._terminal.seen[-2000:].decode("utf-8", "replace"))
        pressed: set[tuple[str, str]] = set()
        everywhere: set[tuple[str, str]] = set()
        for where, keys in SCREENS.items():
            if only and where not in only:
                continue
            self.go(("1", *keys))
            if self.dialog():
                self.note(where, "the jump leads nowhere")
                self.press("escape")
                continue
            crumb = self.lines()[1]
            self.keep(where)
            self.look(where)
            print(f"-- {time.monotonic() - self._began:.0f} s, {where}: {crumb.strip()}", flush=True)
            for key, what in self.help(where):
                if key in _LEFT_OUT or (key, what) in pressed:
                    continue
                if (key, what) in everywhere:
                    pressed.add((key, what))
                everywhere.add((key, what))
                self.back_to(crumb, ("1", *keys))
                before, sent = self.lines(), len(self._terminal.seen)
                self.press(key)
                if self.lines() == before and key not in _MOVES:
                    bytes_ = len(self._terminal.seen) - sent
                    self.note(where, f"{key} ({what}) changes nothing ({bytes_} bytes sent)")
                self.keep(f"{where} key {key}")
                self.look(f"{where}, {key}")
            self.back_to(crumb, ("1", *keys))
        self._terminal.close()


def main() -> None:
    """Spend it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default=SIZES[0])
    parser.add_argument("--screen", action="append", default=[])
    parser.add_argument("--pages", action="store_true")
    parser.add_argument("--own", action="store_true", help="only keys that are the screen's own")
    parser.add_argument("--light", action="store_true")
    parser.add_argument("--term", default="xterm-256color")
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    asked, given = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]
    columns, lines = map(int, asked.size.split("x"))
    with tempfile.TemporaryDirectory() as state, tempfile.TemporaryDirectory() as here:
        os.environ["FOLIOSCOPE_STATE"] = state
        os.environ["PYTHONPATH"] = str(Path.cwd())
        if asked.light:
            Path(state, "interface.json").write_text('{"theme": "folioscope-light"}')
        folder = asked.folder.absolute()
        words = [str(Path(w).absolute()) if Path(w).exists() else w for w in given]
        # Exports go where one stands.
        os.chdir(here)
        evening = Evening(words, (columns, lines), folder, pages=asked.pages, term=asked.term, own=asked.own)
        evening.evening(asked.screen)
        print(f"{len(evening.noted)} to be looked into; exported: {sorted(p.name for p in Path(here).iterdir())}")


if __name__ == "__main__":
    main()
