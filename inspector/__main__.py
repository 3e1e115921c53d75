"""``python -m inspector``: the same as ``folioscope``."""

import os.path
import sys

# Python puts the current directory first on the path of modules; where this package is not from there, nothing is.
if not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(os.path.abspath(__file__))):  # noqa: PTH100, PTH120
    del sys.path[0]

from inspector.cli import main  # noqa: E402

raise SystemExit(main())
