"""`python -m ptinv` is the `ptinv` command."""

from .cli import main

raise SystemExit(main())
