"""`python -m moa.cli` is the command `moa`."""

import sys

from . import main

sys.exit(main())
