"""Runs `trainpilot run FOLDER` with an engine that only counts, for tests of what happens around an engine.

`behaviour.json` in the run folder says how: seconds a step, a checkpoint every so many steps, and before which step of
which attempt it dies, fails, hangs, or holds until the file `go` appears.
`TRACE` in the environment names a file of device use.
"""

import json
import os
import signal
import sys
import time
import types
from pathlib import Path

from trainpilot.cli import main
from trainpilot.errors import ExitCode, PilotError
from trainpilot.runs.stop import StopRequested


def train(run, resolved, *, progress, stop):
    plan = {"pace": 0.02, "every": 5, "at": {}} | json.loads((run.path / "behaviour.json").read_text())
    of = resolved.config.training.steps
    run.checkpoints.mkdir(exist_ok=True)
    step = max((int(path.name[5:]) for path in run.checkpoints.glob("step-*")), default=0)
    run.events.append("start", from_step=step + 1)
    progress.phase("train", of, step)
    trace("begin", run.name)

    def save():
        (run.checkpoints / f"step-{step}").touch()
        run.events.append("checkpoint", step=step)

    try:
        while step < of:
            do = plan["at"].get(f"{run.attempt}:{step + 1}")
            if do == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if do == "fail":
                raise RuntimeError("a defect")
            if do == "refuse":
                raise PilotError("datasets", "nothing", "pictures", "Add some.")
            while do == "hang":
                time.sleep(0.1)
            while do == "hold" and not (run.path / "go").exists():
                stop.check()
                time.sleep(0.02)
            time.sleep(plan["pace"])
            stop.check()
            step += 1
            print(f"line {run.attempt}:{step}", flush=True)
            run.events.append("step", step=step, loss=1 / step)
            run.state.write("train", step, of)
            progress.update(step, loss=1 / step)
            if step % plan["every"] == 0:
                save()
    except StopRequested as asked:
        save()
        return types.SimpleNamespace(status="stopped", reason=asked.reason, exit_code=asked.kind)
    finally:
        trace("end", run.name)
    run.result.write_text("a LoRA")
    return types.SimpleNamespace(status="done", reason="", exit_code=ExitCode.DONE)


def trace(what, name):
    if "TRACE" in os.environ:
        with Path(os.environ["TRACE"]).open("a") as file:
            file.write(f"{what} {name} {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")


if __name__ == "__main__":
    sys.modules["trainpilot.engine.trainer"] = types.SimpleNamespace(train=train)
    sys.exit(main(["run", *sys.argv[1:]]))
