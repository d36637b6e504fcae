"""A real worker in a process of its own, with the counting trainer and short times: WORKSPACE DEVICES [OPTION]."""

import sys
from pathlib import Path

from trainpilot.runs.worker import Rules, Worker
from trainpilot.workspace import Workspace

TRAINER = Path(__file__).with_name("stand_in_trainer.py")
RULES = Rules(backoff=(0.1,), heartbeat=3.0, slow_heartbeat=60.0, dump=0.5, scan=0.1, measure=0.1)


def command(run):
    return [sys.executable, str(TRAINER), str(run)]


if __name__ == "__main__":
    workspace, devices, *options = sys.argv[1:]
    worker = Worker(
        Workspace(Path(workspace)), command, devices.split(","), RULES, tell=lambda text: print(text, flush=True)
    )
    sys.exit(worker.run(until_idle="--until-idle" in options))
