"""The one maker of the training command: configs/flux_PROFILE.toml, then the environment's variables.

python scripts/build_train_cmd.py --profile fast      prints it; --run runs it; DRY_RUN=1 keeps it from running
"""

import sys
from pathlib import Path

try:
    from trainpilot.guides.flux_identity import main
except ImportError:
    sys.exit(f"{sys.executable} has no trainpilot: use the Python it is installed in, or set PILOT_PYTHON to it")

sys.exit(main(Path(__file__).resolve().parents[1]))
