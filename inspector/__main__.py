"""``python -m inspector``: the same as ``folioscope``."""

from inspector.cli import main

raise SystemExit(main())
