"""Says what is wrong with the subject's pictures and captions, and what helps: python scripts/analyze_dataset.py

Other folders and options as `trainpilot dataset check`: python scripts/analyze_dataset.py DIR --type style --html FILE
"""

import sys
from pathlib import Path

try:
    from trainpilot.cli import main
except ImportError:
    sys.exit(f"{sys.executable} has no trainpilot: use the Python it is installed in, or set PILOT_PYTHON to it")

given = sys.argv[1:]
if not given or given[0].startswith("-"):
    given = [str(Path(__file__).resolve().parents[1] / "data" / "subject"), "--type", "face", *given]
sys.exit(main(["dataset", "check", *given]))
