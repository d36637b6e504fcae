"""One trainer process as the worker sees it: started by this worker, or found alive and attached to.

A trainer has its own session and writes its log through an append descriptor, so that it does not notice when the
worker dies; the next worker recognises it by pid, start time and boot.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainpilot.runs.devices import CPU, VISIBLE
from trainpilot.runs.process import Identity, monotonic
from trainpilot.runs.taskdir import STARTED_BY

CORES = "cores"  # in the place of a device: a job that computes on the processor beside whatever trains
NETWORK = "network"  # the same, for a job that waits for the network most of its time


@dataclass
class TrainerProcess:
    """A live trainer. popen: only where this worker started it; own: whether some worker did, who may stop it then."""

    run: Path
    device: str
    identity: Identity
    popen: subprocess.Popen[bytes] | None = None
    own: bool = True
    since: float = field(default_factory=monotonic)
    leaving: bool = False  # it was asked to save and leave
    dumped_at: float | None = None  # when it was asked for its stack, because its heartbeat stood still

    @classmethod
    def start(
        cls,
        run: Path,
        device: str,
        command: Sequence[str],
        *,
        by: str = "worker",
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> TrainerProcess:
        """Start the process of a run or job on a device. Raises OSError where it cannot be started.

        environment: instead of ours; descriptors: kept open in it, under their numbers.
        """
        given = dict(os.environ if environment is None else environment) | {STARTED_BY: by, "PYTHONUNBUFFERED": "1"}
        given[VISIBLE] = "" if device in (CPU, CORES, NETWORK) else device
        # No link is followed: the courier writes where others can, and may write where they cannot.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        log = os.open(run / "log.txt", flags, 0o664)
        try:
            popen = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=given,
                pass_fds=tuple(descriptors),
                start_new_session=True,
            )
        finally:
            os.close(log)
        # A child that ended at once is a zombie until `ended` collects it: its pid cannot belong to anybody else.
        identity = Identity.of(popen.pid) or Identity(popen.pid, -1.0, "", "")
        return cls(run, device, identity, popen)

    def ended(self) -> bool:
        if self.popen is not None:
            return self.popen.poll() is not None
        return not self.identity.alive()

    @property
    def exit_code(self) -> int | None:
        """What it ended with; negative: the signal; None where it was not our child."""
        return self.popen.returncode if self.popen is not None else None

    def stop(self) -> None:
        """Ask it to save and leave (pre-emption)."""
        self.leaving = True
        self.identity.signal(signal.SIGTERM)

    def dump(self) -> None:
        """Make it print the stacks of all its threads into its log and abort."""
        self.dumped_at = monotonic()
        self.identity.signal(signal.SIGABRT)

    def kill(self) -> None:
        self.identity.signal(signal.SIGKILL)
