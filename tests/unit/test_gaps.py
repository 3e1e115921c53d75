"""The list of gaps between the kernel's stores, and the windows that are made of it."""

from __future__ import annotations

from inspector.windows.catalogue import BY_FUNCTION, WINDOWS
from inspector.windows.gaps import GAPS, SOURCES, Whose
from inspector.windows.window import Effect

KERNELS = ("6.1", "6.12", "7.3")
MADE_OF_GAPS = {"W4", "W5", "W6", "W7", "W19", "W26", "W28"}


def test_every_gap_is_of_a_function_that_those_kernels_have() -> None:
    assert len(GAPS) > 80
    assert {gap.window for gap in GAPS} == MADE_OF_GAPS
    for gap in GAPS:
        files = dict(zip(KERNELS, SOURCES[gap.function], strict=True))
        assert all(files[kernel].endswith(".c") for kernel in gap.kernels.split()), gap.function
        assert gap.after
        assert gap.differs
    named = {gap.function for gap in GAPS}
    assert set(SOURCES) == named
    for name in named:
        said = {kernel for gap in GAPS if gap.function == name for kernel in gap.kernels.split()}
        assert said == {kernel for kernel, file in zip(KERNELS, SOURCES[name], strict=True) if file}, name


def test_a_window_explains_what_its_gaps_say_and_nothing_else() -> None:
    for gap in GAPS:
        windows = [WINDOWS[i] for i in BY_FUNCTION[gap.function] if WINDOWS[i].id == gap.window]
        assert any(gap.differs <= set(window.effects) for window in windows), gap.function
    for ident in MADE_OF_GAPS:
        able = {effect for gap in GAPS if gap.window == ident for effect in gap.differs}
        assert any(set(window.effects) == able for window in WINDOWS if window.id == ident), ident


def test_what_fork_leaves_undone_concerns_the_child_alone() -> None:
    made = {window.id: window.made for window in WINDOWS if window.made}
    assert made.keys() == {"W4"}
    assert {Effect.VMAS, Effect.MM_IDS} <= made["W4"]
    anyone = {e for gap in GAPS if gap.window == "W4" and gap.whose is Whose.WORKED_ON for e in gap.differs}
    assert not anyone & made["W4"]
