"""Trains a LoRA as the SDXL guide says, with TrainPilot's engine.

python training/train_lora.py --config training_config.yaml --hub_model_id user/model
accelerate launch --mixed_precision="fp16" training/train_lora.py --config training_config.yaml
"""

import sys
from pathlib import Path

try:
    from trainpilot.guides.sdxl import main
except ImportError:
    sys.exit(f"{sys.executable} has no trainpilot: run it with the Python that trainpilot is installed in")

if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parents[1], sys.argv[1:]))
