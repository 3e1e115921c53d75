"""Colours of cells by name, for dark and light themes; a cell's glyph always says the same thing without them."""

from __future__ import annotations

from functools import lru_cache

from rich.style import Style
from textual.color import Color

_BASE = {
    "free": "#5c6773",
    "kernel": "#7385a0",
    "anon": "#4f8fe6",
    "ksm": "#a97be0",
    "shmem": "#2fb5ac",
    "file": "#5fae5f",
    "hugetlb": "#e08a3c",
    "movable": "#a59a6c",
    "reserved": "#8a7676",
    "device": "#6f8f7f",
    "zero": "#9aa8b8",
    "huge zero": "#9aa8b8",
    "page table": "#cf72b4",
    "slab": "#c9a227",
    "kmalloc": "#b58d2a",
    "zsmalloc": "#b5734a",
    "unaccepted": "#7d7d8c",
    "guard": "#7d7d8c",
    "offline": "#7d7d8c",
    "unreadable": "#8c8c8c",
    "broken tail": "#e5484d",
    "swap": "#d2798a",
    "special": "#a59a6c",
    "away": "#e0a93c",
    "info": "#5a9bd8",
    "warn": "#e0a93c",
    "fail": "#e5484d",
    "ok": "#5fae5f",
    "heat0": "#3d5f96",
    "heat1": "#3878a8",
    "heat2": "#2f9a9a",
    "heat3": "#58ad6a",
    "heat4": "#b5b03f",
    "heat5": "#e09a3a",
    "heat6": "#e0603a",
}
_PART = {"1": 0.22, "2": 0.42, "3": 0.68}


@lru_cache(maxsize=2048)
def shade_style(shade: str, background: str, *, dark: bool) -> Style:
    """The style of a shade on a background.

    Args:
        shade: ``anon`` for ink alone, ``anon-1`` to ``anon-3`` for a tile of rising strength, empty for plain.
        background: Colour of the widget, ``#rrggbb``.
        dark: Whether the theme is dark.
    """
    ground = Color.parse(background)
    text = Color.parse("#d8dee9" if dark else "#2e3440")
    name, _, strength = shade.partition("-")
    base = Color.parse(_BASE[name]) if name else text
    if name == "free":
        return Style(color=ground.blend(text, 0.35).rich_color, bgcolor=ground.rich_color)
    if not strength:
        return Style(color=base.rich_color, bgcolor=ground.rich_color)
    tile = ground.blend(base, _PART[strength])
    ink = base.blend(text, 0.45) if strength != "3" else tile.get_contrast_text(0.95)
    return Style(color=ink.rich_color, bgcolor=tile.rich_color)
