"""Check the kernel that drgn has opened; the report of folioscope check.

$ drgn -c tests/fixtures/7.3.kdump scripts/check.py
...
unreadable  none
...
verdict     consistent
"""

import inspector

print(inspector.as_text(inspector.check(inspector.Snapshot(inspector.from_program()))))
