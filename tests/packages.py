"""The wheel and the sdist, installed in clean environments and run there: ``python -m tests.packages``.

    python -m tests.packages --pythons 3.11 3.12 3.13 3.14

Each of pip, pipx and uv installs the wheel, and pip the sdist, with each Python of this machine: on the path, or one of
pyenv's. Then the command runs from another folder: the version, a check of a captured vmcore, a script, the
manual; once more without Textual, which only the terminal interface needs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.arch.docs import ROOT
from tests.fixtures import fixture_path

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""Versions that are supported."""

UV = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))


def python_of(version: str) -> str | None:
    """The interpreter of a version, None where there is none."""
    # Those of pyenv first: what it puts on the path need not lead to one.
    homes = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python3"))
    if homes:
        return str(homes[-1])
    is_this = version == f"{sys.version_info.major}.{sys.version_info.minor}"
    return shutil.which(f"python{version}") or (sys.executable if is_this else None)


def run(words: Sequence[str | Path], **more: str) -> str:
    """What a command prints; it runs in an empty folder and sees nothing of this checkout."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            list(map(str, words)), cwd=empty, env=alone | more, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def build(out: Path) -> tuple[Path, Path]:
    """Build both from what is committed.

    Returns:
        The wheel, which is built from the sdist, and the sdist.
    """
    source = out / "source"
    source.mkdir(parents=True)
    packed = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "x", "-C", str(source)], input=packed, check=True)
    run([UV, "build", "-q", "--out-dir", out / "dist", source])
    (wheel,) = (out / "dist").glob("*.whl")
    (sdist,) = (out / "dist").glob("*.tar.gz")
    return wheel, sdist


def by_pip(python: str, package: Path, home: Path) -> Path:
    """Into a virtual environment, with the pip that comes with it."""
    run([python, "-m", "venv", home])
    run([home / "bin/python", "-m", "pip", "--disable-pip-version-check", "install", "-q", package])
    return home / "bin"


def by_uv(python: str, package: Path, home: Path) -> Path:
    """As a tool of uv."""
    places = {"UV_TOOL_DIR": str(home / "tools"), "UV_TOOL_BIN_DIR": str(home / "bin")}
    run([UV, "tool", "install", "-q", "--python", python, package], **places)
    return home / "tools/folioscope/bin"


def by_pipx(python: str, package: Path, home: Path) -> Path:
    """As an application of pipx."""
    places = {"PIPX_HOME": str(home / "home"), "PIPX_BIN_DIR": str(home / "bin"), "PIPX_MAN_DIR": str(home / "man")}
    run([UV, "tool", "run", "-q", "pipx", "install", "--python", python, package], **places)
    pages = {page.name for page in (home / "man/man1").iterdir()}
    assert "folioscope-check.1" in pages, pages
    return home / "home/venvs/folioscope/bin"


def use(programs: Path) -> None:
    """See that what was installed works."""
    folioscope, core = programs / "folioscope", fixture_path("6.1")
    assert run([folioscope, "--version"]).startswith("folioscope ")
    assert "consistent" in run([folioscope, "-c", core, "check"])
    assert "check_mapcounts" in run([folioscope, "scripts"])
    assert "Many vmcores" in run([folioscope, "manual", "fleet"])
    code = "import inspector, pathlib; print(inspector.open_core({!r}).identity.release); "
    code += "home = pathlib.Path(inspector.__file__).parent; assert (home / 'py.typed').exists(); "
    code += "import tui; print(any(home.glob('_loops*.so')))"
    release, compiled = run([programs / "python", "-c", code.format(str(core))]).split()
    assert release.startswith("6.1"), release
    assert compiled == "True"
    others = {"inspector", "tui"}
    code = "import importlib.metadata as m; print(*m.distribution('folioscope').read_text('top_level.txt').split())"
    assert set(run([programs / "python", "-c", code]).split()) <= others


def use_without_textual(programs: Path) -> None:
    """A host that only runs batches need not have it."""
    run([UV, "pip", "uninstall", "-q", "--python", programs / "python", "textual"])
    use(programs)


INSTALLERS: dict[str, tuple[Callable[[str, Path, Path], Path], bool]] = {
    "pip": (by_pip, False),
    "pip, sdist": (by_pip, True),
    "pipx": (by_pipx, False),
    "uv": (by_uv, False),
}
"""How, and whether from the sdist. A wheel is for one version of Python: others build theirs from the sdist."""


def try_all(folder: Path, pythons: Sequence[str], installers: Sequence[str]) -> dict[str, dict[str, str]]:
    """Install and run.

    Returns:
        By version and installer: what came of it.
    """
    wheel, sdist = build(folder)
    found: dict[str, dict[str, str]] = {}
    for version in pythons:
        python = python_of(version)
        fits = f"-cp{version.replace('.', '')}-" in wheel.name
        for name in installers:
            cell = "no such Python here"
            if python is not None:
                install, from_source = INSTALLERS[name]
                home = folder / f"{version}-{name.replace(', ', '-')}"
                programs = install(python, sdist if from_source or not fits else wheel, home)
                use(programs)
                if name == "uv":
                    use_without_textual(programs)
                shutil.rmtree(home)
                cell = "works"
            found.setdefault(version, {})[name] = cell
            print(f"{version} {name}: {cell}", flush=True)
    return found


def main() -> None:
    """Print what works."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pythons", nargs="+", default=PYTHONS)
    parser.add_argument("--installers", nargs="+", default=tuple(INSTALLERS), choices=tuple(INSTALLERS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try_all(Path(folder), given.pythons, given.installers)


if __name__ == "__main__":
    main()
