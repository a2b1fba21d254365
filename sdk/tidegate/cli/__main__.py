"""`python -m tidegate.cli` is the same as `tidegate`."""

import sys

from tidegate.cli.main import main

sys.exit(main())
