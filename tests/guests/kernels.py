"""Which kernels are built, and how their packages are found in the archive."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .errors import GuestError

CLOUD = "cloud-amd64"
FLAVOURS = {"cloud": CLOUD, "rt": "rt-amd64", "plain": "amd64"}
"""How Debian names what it builds from one source: for virtual machines, PREEMPT_RT, for any machine."""


@dataclass(frozen=True)
class Kernel:
    """A kernel by the name it has in the cache, and where to look for it."""

    name: str
    suites: tuple[str, ...]
    # Version patterns, best first: what follows the first one takes over when the archive has moved on.
    versions: tuple[str, ...]
    flavour: str = CLOUD

    def pick(self, packages: list[str]) -> str:
        """Return the newest version, as it stands in the package names, that the best pattern finds."""
        for pattern in self.versions:
            wanted = re.compile(rf"linux-image-({pattern})-{self.flavour}")
            found = [match[1] for name in packages if (match := wanted.fullmatch(name))]
            if found:
                return max(found, key=_version_key)
        any_of = " or ".join(self.versions)
        raise GuestError(f"kernel {self.name}", f"no linux-image-{any_of}-{self.flavour} in the archive")


def _version_key(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


KERNELS = (
    Kernel("6.1", ("bookworm", "bookworm-updates", "bookworm-security"), (r"6\.1\.\d+-\d+",)),
    Kernel(
        "6.12",
        ("trixie", "trixie-updates", "trixie-security", "bookworm-security"),
        (r"6\.12\.\d+\+deb13[.\d]*", r"6\.12\.\d+\+deb12[.\d]*"),
    ),
    Kernel(
        "7.3",
        ("trixie-backports",),
        (r"7\.3\.\d+\+deb\d+[.\d]*", r"7\.[4-9]\.\d+\+deb\d+[.\d]*", r"[7-9]\.\d+\.\d+\+deb\d+[.\d]*"),
    ),
)


def kernel_named(name: str) -> Kernel:
    """Return the kernel of that name: one of KERNELS, another version (6.18, sid), or a flavour of one (6.12-rt)."""
    version, _, flavour = name.partition("-")
    if flavour and flavour not in FLAVOURS:
        raise GuestError(f"kernel {name}", f"no such flavour; there are {', '.join(FLAVOURS)}")
    known = next((kernel for kernel in KERNELS if kernel.name == version), None) or _other(version)
    if known is None:
        names = ", ".join(kernel.name for kernel in KERNELS)
        raise GuestError(f"kernel {name}", f"not known; there are {names}, other versions such as 6.18, and sid")
    return replace(known, name=name, flavour=FLAVOURS[flavour]) if flavour else known


def _other(version: str) -> Kernel | None:
    """A kernel that no guest is kept of."""
    if version in ("sid", "experimental"):
        return Kernel(version, (version,), (r"\d+\.\d+[.\d]*(?:\+deb\d+[.\d]*)?",))
    if re.fullmatch(r"\d+\.\d+", version):
        return Kernel(version, ("trixie-backports",), (rf"{re.escape(version)}\.\d+\+deb\d+[.\d]*",))
    return None
