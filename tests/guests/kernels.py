"""Which kernels are built, and how their packages are found in the archive."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import GuestError


@dataclass(frozen=True)
class Kernel:
    """A kernel by the name it has in the cache, and where to look for it."""

    name: str
    suites: tuple[str, ...]
    # Version patterns, best first: what follows the first one takes over when the archive has moved on.
    versions: tuple[str, ...]

    def pick(self, packages: list[str]) -> str:
        """Return the newest version, as it stands in the package names, that the best pattern finds."""
        for pattern in self.versions:
            found = [
                match[1] for name in packages if (match := re.fullmatch(rf"linux-image-({pattern})-cloud-amd64", name))
            ]
            if found:
                return max(found, key=_version_key)
        wanted = " or ".join(self.versions)
        raise GuestError(f"kernel {self.name}", f"no linux-image-{wanted}-cloud-amd64 in the archive")


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
    """Return the kernel of that name."""
    for kernel in KERNELS:
        if kernel.name == name:
            return kernel
    known = ", ".join(kernel.name for kernel in KERNELS)
    raise GuestError(f"kernel {name}", f"not known; there are {known}")
