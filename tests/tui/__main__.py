"""``make pictures``: pictures of the interface for the README, made from a captured vmcore with a fault planted."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from tests.tui.driving import press, settle
from tests.tui.scenes import DIALOGS, ROOT, broken, places
from tui.app import FolioscopeApp

FOLDER = ROOT / "tui" / "pictures"
SIZES = {"memory": (90, 26)}
SIZE = (120, 36)
SHOWN = ("overview", "finding", "folio", "rmap", "mm", "memory")


async def picture(name: str) -> str:
    """One scene as SVG."""
    scene, keys = DIALOGS.get(name, (name, ()))
    app = FolioscopeApp(broken(), places(broken())[scene])
    async with app.run_test(size=SIZES.get(name, SIZE)) as pilot:
        await settle(pilot)
        await press(pilot, *keys)
        await pilot.pause(0.3)
        await settle(pilot)
        svg = app.export_screenshot(title="folioscope")
    # Names made from a hash of the content would change everywhere with every change.
    return re.sub(r"terminal-\d+", f"folioscope-{name}", svg)


def main() -> None:
    """Write them all."""
    os.environ["TEXTUAL_ANIMATIONS"] = "none"
    FOLDER.mkdir(exist_ok=True)
    for name in SHOWN:
        path = FOLDER / f"{name}.svg"
        path.write_text(asyncio.run(picture(name)), encoding="utf-8")
        print(Path(path).relative_to(ROOT))


if __name__ == "__main__":
    main()
