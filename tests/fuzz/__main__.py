"""``python -m tests.fuzz``."""

from tests.fuzz.kinds import main

raise SystemExit(main())
