"""The fingerprint of a finding: the same for the same fault in another folio, process, boot or machine.

Two findings with the same fingerprint look like one bug, seen twice. It is made of what a fault is, and of nothing that
says where it is: no address, no page frame, no pid, no name of a process or file, no number of a slot.
"""

from __future__ import annotations

import hashlib
import re

from inspector.findings import Finding, Scalar
from inspector.model.counters import newest_name
from inspector.subjects import VMSTAT, kind_of

VERSION = 1
"""Of what goes into a fingerprint: another number makes others of the same findings."""

_DIGITS = 16
"""Hex digits of a fingerprint: 64 bits."""

_WORD = 1 << 31
"""Numbers from here on are addresses, entries or words of bits, not counts."""

_NEAR = 512
"""Two such numbers less than this apart are offsets of the same thing."""

_MASK = (1 << 64) - 1

_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+")
_PROCESS = re.compile(r"pid N(?: \([^)]*\))?")

_FEW = 2
"""Values with nothing to compare them with that are what is wrong; where there are more they describe the subject."""

_DESCRIBING = ("kind", "type")
"""Facts in words that say what a thing is; others say where it is or what is around it."""


def fingerprint(finding: Finding) -> str:
    """Sixteen hex digits that are the same for the same fault elsewhere."""
    return hashlib.sha256(f"{VERSION} {signature(finding)}".encode()).hexdigest()[:_DIGITS]


def signature(finding: Finding) -> str:
    """What the fingerprint is made of, in words that people can read.

    The rule, the kind of its subject, the order of a folio, how stored values differ from expected ones, by what the
    subject is mapped, and what it amounts to as ``explain`` says it.
    """
    parts = [finding.rule]
    if finding.exactness == "transient":
        parts.append("in flight")
    subject = finding.subject
    about = subject.kind.replace("_", " ")
    if subject.order is not None:
        about += f" of order {subject.order}"
    if kind_of(subject) is VMSTAT and subject.name:
        about += f" {_plain(subject.name)}"
    parts += [about, *_differences(finding), *_facts(finding), _owners(finding)]
    if finding.diagnosis is not None:
        parts.append(finding.diagnosis.verdict)
    return "; ".join(filter(None, parts))


def _differences(finding: Finding) -> list[str]:
    """Direction and shape of each value that is not as expected."""
    observed, expected = finding.observed, finding.expected
    size = 1 << (finding.subject.order or 0)
    both = [name for name in observed if name in expected and observed[name] != expected[name]]
    out = [f"{newest_name(name)} {_shape(name, observed[name], expected[name], size)}" for name in both]
    words = [f"{name} is {_plain(value)}" for name, value in observed.items() if _is_in_words(name, value, expected)]
    if out or words:
        return [*out, *words]
    alone = [f"{name} is {_sign(value)}" for name, value in observed.items() if name not in expected]
    return alone if len(alone) <= _FEW else []


def _is_in_words(name: str, value: Scalar, expected: dict[str, Scalar]) -> bool:
    """Whether a value with nothing to compare it with says what is wrong: words do, lists of flags that are set not."""
    return isinstance(value, str) and name not in expected and not name.endswith("flags")


def _shape(name: str, stored: Scalar, wanted: Scalar, size: int) -> str:
    if not _is_number(stored) or not _is_number(wanted):
        return f"{_sign(stored)} for {_sign(wanted)}"
    assert isinstance(stored, int)
    assert isinstance(wanted, int)
    more = stored - wanted
    if abs(more) == 1:
        return f"{more:+d}"
    if name.endswith("pfn") or (max(abs(stored), abs(wanted)) >= _WORD and abs(more) >= _NEAR):
        return _shape_of_words(stored & _MASK, wanted & _MASK)
    direction = "more" if more > 0 else "fewer"
    if size > 1 and abs(more) == size:
        return f"{direction} by the pages of the folio"
    return direction if stored or wanted < 0 else "none left"


def _shape_of_words(stored: int, wanted: int) -> str:
    if not stored or not wanted:
        return "cleared" if not stored else "set"
    return "with one bit flipped" if (stored ^ wanted).bit_count() == 1 else "another"


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _sign(value: Scalar) -> str:
    """A value by itself: words as they are, of a number its sign."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return _plain(value) or '""'
    return "0" if not value else "negative" if value < 0 else "positive"


def _plain(text: str | Scalar) -> str:
    """Words without the numbers in them, and without the process that one of them is the pid of."""
    return _PROCESS.sub("pid N", _NUMBERS.sub("N", str(text)))


def _facts(finding: Finding) -> list[str]:
    out = []
    for name, value in finding.evidence.facts.items():
        if isinstance(value, bool):
            out.append(f"{name}: {_sign(value)}")
        elif name in _DESCRIBING and isinstance(value, str):
            out.append(f"{name}: {_plain(value)}")
    return out


def _owners(finding: Finding) -> str:
    """By what the subject is mapped: at which levels, once or more often, by one address space or several."""
    evidence = finding.evidence
    if not evidence.nr_mappings:
        return ""
    levels = " and ".join(sorted({m.level for m in evidence.mappings}))
    if evidence.nr_mappings == 1:
        return f"mapped once by {levels}"
    several = len({m.mm for m in evidence.mappings}) > 1
    return f"mapped by {levels} of {'several address spaces' if several else 'one address space'}"
