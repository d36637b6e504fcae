"""Checks that the guide's scripts and configurations belong together: python scripts/validate_config_usage.py"""

import sys
from pathlib import Path

try:
    from trainpilot.guides.validation import main
except ImportError:
    sys.exit(f"{sys.executable} has no trainpilot: use the Python it is installed in, or set PILOT_PYTHON to it")

sys.exit(main(Path(__file__).resolve().parents[1]))
