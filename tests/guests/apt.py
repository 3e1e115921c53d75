"""Ask the machine's own apt for packages of any Debian suite, through private lists."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .errors import GuestError

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SECURITY = "-security"


class Apt:
    """apt with its own sources and lists in a folder; nothing is installed."""

    def __init__(self, folder: Path, suites: tuple[str, ...]) -> None:
        """Prepare folder for the suites."""
        self._folder = folder
        (folder / "lists/partial").mkdir(parents=True, exist_ok=True)
        sources = folder / "sources.list"
        addresses = _archive_addresses()
        sources.write_text(
            "".join(
                f"deb [signed-by={KEYRING}] {address} {suite} main\n"
                for suite in suites
                if (address := addresses.get(suite.endswith(SECURITY)))
            )
        )
        self._options = [
            f"-oDir::Etc::sourcelist={sources}",
            "-oDir::Etc::sourceparts=-",
            f"-oDir::State::Lists={folder / 'lists'}",
            "-oDir::Cache::pkgcache=",
            "-oDir::Cache::srcpkgcache=",
            "-oAPT::Architecture=amd64",
            "-oAPT::Sandbox::User=root",
        ]

    def update(self) -> None:
        """Fetch the package lists."""
        _run(["apt-get", *self._options, "update", "-q"], "apt-get update")

    def names(self, pattern: str) -> list[str]:
        """Return the names of all packages that match pattern."""
        text = _run(["apt-cache", *self._options, "search", "--names-only", pattern], "apt-cache search")
        return [line.split(" ", 1)[0] for line in text.splitlines()]

    def download(self, package: str, folder: Path) -> Path:
        """Fetch one package into folder and return its file."""
        folder.mkdir(parents=True, exist_ok=True)
        _run(["apt-get", *self._options, "download", "-q", package], f"package {package}", folder)
        files = sorted(folder.glob(f"{package}_*.deb"), key=lambda path: path.stat().st_mtime)
        if not files:
            raise GuestError(f"package {package}", "apt-get download left no file")
        return files[-1]


def unpack(package: Path, target: Path, wanted: str | None = None) -> None:
    """Unpack a package below target; with wanted, only the files that match that pattern."""
    target.mkdir(parents=True, exist_ok=True)
    if wanted is None:
        _run(["dpkg-deb", "-x", str(package), str(target)], f"unpacking {package.name}")
        return
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as source:
        done = subprocess.run(
            ["tar", "-x", "-C", str(target), "--wildcards", wanted],
            stdin=source.stdout,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise GuestError(f"unpacking {package.name}", _last_line(done.stderr))


def package_version(package: Path) -> str:
    """Return the version that a package file states."""
    return _run(["dpkg-deb", "-f", str(package), "Version"], f"reading {package.name}").strip()


def _archive_addresses() -> dict[bool, str]:
    """Return the archive's address (False) and that of its security suites (True), as apt has them."""
    text = _run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"],
        "apt-get indextargets",
    )
    addresses: dict[bool, str] = {}
    for line in text.splitlines():
        address, _, release = line.partition(" ")
        if release.startswith(("bookworm", "trixie", "forky", "sid", "stable")):
            addresses.setdefault(release.endswith(SECURITY), address)
    if False not in addresses:
        raise GuestError("the package archive", "apt knows no Debian archive on this machine")
    return addresses


def _run(command: list[str], what: str, folder: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    except FileNotFoundError as error:
        raise GuestError(what, f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise GuestError(what, "no end in 600 s") from error
    if done.returncode:
        raise GuestError(what, _last_line(done.stderr))
    return done.stdout


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E:")]
    return (errors or lines or ["no reason given"])[-1].strip()
