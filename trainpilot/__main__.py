"""`python -m trainpilot` is the `trainpilot` command."""

import sys

from trainpilot.cli import main

sys.exit(main())
