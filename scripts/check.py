"""Check the kernel that drgn has opened; the report of folioscope check.

$ drgn -c tests/fixtures/7.3.kdump scripts/check.py
"""

from drgn import get_default_prog

from inspector.check import run_check
from inspector.report.check import render_report
from inspector.report.screen import Screen
from inspector.snapshot import Snapshot
from inspector.target.target import from_program

report = run_check(Snapshot(from_program(get_default_prog())))
print("\n".join(render_report(Screen(), report)))
