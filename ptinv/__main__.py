"""`python -m ptinv` is the `ptinv` command."""

import sys

from .cli import main

sys.exit(main())
