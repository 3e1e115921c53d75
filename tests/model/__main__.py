"""Many sequences of operations against the closed form: ``python -m tests.model [sequences per scheme]``."""

from __future__ import annotations

import random
import sys
import time
from dataclasses import replace

from inspector.model.interface import SPECS, Op
from inspector.model.scheme import Scheme
from tests.model.sequences import CASES, Run, folio_of, names_for


def sequence(scheme: Scheme, shape: str, rng: random.Random, steps: int) -> Run:
    """One sequence; every state of it is checked."""
    folio = folio_of(scheme, shape)
    run = Run(replace(folio, anon_mapping=folio.kind.is_anon and rng.random() < 0.5, pinned=rng.random() < 0.2))
    names = names_for(folio)
    for _ in range(steps):
        name, page, mm = rng.choice(names), rng.randrange(folio.nr), rng.randint(1, 3)
        if run.folio.ptes and rng.random() < 0.3:
            (mm, page), _ = rng.choice(run.folio.ptes)
        nr = rng.randint(1, folio.nr - page) if SPECS[name].batch else 1
        run.step(Op(name, mm, page, nr, rng.random() < 0.3, rng.random() < 0.2))
        run.check()
    return run


def main(sequences: int) -> None:
    """Per scheme: sequences, operations done, refused and busy."""
    for scheme in Scheme:
        shapes = [shape for s, shape in CASES if s is scheme]
        start, done, refused, busy = time.monotonic(), 0, 0, 0
        for i in range(sequences):
            run = sequence(scheme, shapes[i % len(shapes)], random.Random(f"{scheme.name} {i}"), 40)
            done, refused, busy = done + len(run.done), refused + run.refused, busy + run.busy
        print(
            f"{scheme.name:17} {sequences} sequences, {len(shapes)} shapes: {done} operations agree, "
            f"{refused} refused, {busy} busy ({time.monotonic() - start:.1f} s)"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
