"""Results of the bench: kept as JSON by commit, compared as ratios."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

REGRESSION = 0.10
"""How much a ratio may grow before it is shown."""

VARIABLE = "FOLIOSCOPE_BENCH"
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Change:
    """A ratio that is not what it was.

    Attributes:
        question: Of the bench.
        what: The ratio: to which peer, or of what.
        before, after: Its values.
    """

    question: str
    what: str
    before: float
    after: float

    @property
    def is_worse(self) -> bool:
        """Whether it has grown by more than may be."""
        return self.after > self.before * (1 + REGRESSION)


def results_folder() -> Path:
    """Where results are kept on this machine."""
    return Path(os.environ.get(VARIABLE) or Path.home() / ".cache/folioscope/bench").expanduser()


def commit() -> str:
    """The commit of the working tree, with a plus sign when it has been changed."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(_ROOT), *words], capture_output=True, text=True, check=False).stdout

    name = git("rev-parse", "--short=12", "HEAD").strip() or "unknown"
    return name + ("+" if git("status", "--porcelain", "--untracked-files=no").strip() else "")


def dump_key(core: Path) -> str:
    """A dump by the names that tell it from others on this machine."""
    return "-".join([core.parent.name, core.name])


def compression_costs(peers: dict[str, dict[str, float]]) -> float | None:
    """CPU time that a question takes more on a compressed dump than on that as ELF, over the decompressor's alone."""
    ours, on_elf, alone = (peers.get(who) for who in ("folioscope", "folioscope, on ELF", "decompressor alone"))
    if ours is None or on_elf is None or alone is None or not alone["cpu"]:
        return None
    return (ours["cpu"] - on_elf["cpu"]) / alone["cpu"]


def ratios(rows: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """What does not depend on how fast a machine is: our CPU time over each peer's, peak memory in MiB, bytes a key.

    Args:
        rows: By question and by who answered it, what it cost.
    """
    out: dict[str, dict[str, float]] = {}
    for question, peers in rows.items():
        ours = peers.get("folioscope")
        if ours is None:
            # Not costs but what was sent to terminals.
            out[question] = {f"{what}, {size}, bytes": nr for size, row in peers.items() for what, nr in row.items()}
            continue
        out[question] = {
            f"CPU / {who}": ours["cpu"] / row["cpu"]
            for who, row in peers.items()
            if not who.startswith("folioscope") and row.get("cpu", 0) > 0 and ours.get("cpu")
        }
        costs = compression_costs(peers)
        if costs is not None:
            out[question]["compression / decompressor alone"] = costs
        out[question]["peak MiB"] = ours["peak_mib"]
    return out


def compare(
    before: dict[str, dict[str, dict[str, float]]], after: dict[str, dict[str, dict[str, float]]]
) -> list[Change]:
    """Every ratio that both have, changed or not."""
    old, new = ratios(before), ratios(after)
    return [
        Change(question, what, old[question][what], value)
        for question, found in new.items()
        for what, value in found.items()
        if what in old.get(question, {})
    ]


def keep(core: Path, rows: dict[str, Any], facts: dict[str, Any], target: Path | None = None) -> Path:
    """Write the results of this commit for one dump, to ``target`` or where they are looked for."""
    target = target or results_folder() / dump_key(core) / f"{commit()}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    whole = {
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "dump": {"name": dump_key(core), "bytes": core.stat().st_size, **facts},
        "rows": rows,
    }
    target.write_text(json.dumps(whole, indent=1) + "\n")
    return target


def latest_before(core: Path) -> dict[str, Any] | None:
    """The newest results for a dump that are of another commit than this one; None when there are none."""
    here = results_folder() / dump_key(core)
    found = [json.loads(path.read_text()) for path in here.glob("*.json") if path.stem != commit()]
    return max(found, key=lambda result: str(result["date"]), default=None)
