"""`python -m karp.cli` is the `karp` command."""

import sys

from karp.cli.main import main

sys.exit(main())
