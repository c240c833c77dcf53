"""``python -m groundstate`` is the same as ``groundstate``."""

from groundstate.cli import main

raise SystemExit(main())
