"""What was opened and how, as the facts that head every report."""

from __future__ import annotations

from inspector.findings import Scalar
from inspector.snapshot import Snapshot
from inspector.text import clean


def target_facts(s: Snapshot) -> dict[str, Scalar]:
    """Identity of the target and how it was opened; kernel strings cleaned."""
    target, identity = s.target, s.target.identity
    scheme = s.scheme
    return {
        "path": clean(target.path),
        "kind": target.kind,
        "types_from": target.types_from,
        "symbols_from": clean(target.symbols_from),
        "release": clean(identity.release) if identity.release else None,
        "build_id": identity.build_id,
        "architecture": identity.architecture,
        "page_size": identity.page_size,
        "paging_levels": identity.paging_levels,
        "scheme": scheme.name if scheme else None,
    }
