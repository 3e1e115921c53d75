"""The catalogue of windows keeps to the order in which the kernel moves things."""

from __future__ import annotations

from inspector.model.counters import Direction, RmapCounter, meaning
from inspector.windows.catalogue import BY_FUNCTION, WINDOWS
from inspector.windows.window import Effect, Way


def ids(effect: Effect, way: Way) -> set[str]:
    return {w.id for w in WINDOWS if w.effects.get(effect) is way}


def test_every_window_of_the_catalogue_is_there() -> None:
    # W14 is no place in code: per-CPU batches are read themselves.
    assert {w.id for w in WINDOWS} == {f"W{n}" for n in range(1, 33) if n != 14}
    assert all(w.effects and w.functions and w.title for w in WINDOWS)


def test_a_page_mapcount_is_never_behind_the_page_tables() -> None:
    assert ids(Effect.PAGE, Way.EITHER) == set()
    found = meaning(RmapCounter.PAGE, Direction.TOO_LOW)
    assert found is not None
    assert not found.transient


def test_only_a_pmd_split_leaves_counts_of_whole_folios_too_low() -> None:
    for effect in (Effect.ENTIRE, Effect.LARGE, Effect.PAGES_MAPPED, Effect.DOUBLY_MAPPED):
        assert ids(effect, Way.EITHER) == {"W10"}, effect
    split = next(w for w in WINDOWS if w.id == "W10")
    assert split.spinning


def test_statistics_may_be_off_either_way() -> None:
    assert ids(Effect.RSS, Way.HIGH) == ids(Effect.STATISTIC, Way.HIGH) == set()


def test_functions_lead_to_their_windows() -> None:
    assert {WINDOWS[i].id for i in BY_FUNCTION["collapse_huge_page"]} == {"W8", "W31", "W32"}
    assert {WINDOWS[i].id for i in BY_FUNCTION["dup_mmap"]} == {"W4"}
    assert "schedule" not in BY_FUNCTION
