"""``python -m isentropic``."""

import sys

from isentropic.cli import main

sys.exit(main())
