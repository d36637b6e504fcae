"""The one error shape of the product: where, what was given, what is allowed, what to do.

The same object renders as command-line text, as JSON for the API and as an inline message of a form.
Everything that can go wrong through a person's input raises `PilotError`; exit codes are those of the contracts.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """How a trainer process ended; the worker decides from it whether to start the run again."""

    DONE = 0
    BAD_INPUT = 2  # configuration or data: a retry cannot help
    FAILED = 3  # a retry may help
    STOPPED = 4  # by a person: never resumed by itself
    PREEMPTED = 5  # by SIGTERM: resumed by itself


class PilotError(Exception):
    """A problem a person can act on.

    where: setting, file or place; given: what was found there; allowed: what would be accepted;
    remedy: the next thing to do. `exit_code` is what a command ends with when nobody handles the error.
    """

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, where: object, given: object, allowed: object, remedy: str) -> None:
        self.where = str(where)
        self.given = str(given)
        self.allowed = str(allowed)
        self.remedy = remedy
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """One sentence for a log line."""
        return f"{self.where}: {self.given}; allowed: {self.allowed}. {self.remedy}"

    def as_dict(self) -> dict[str, object]:
        """The JSON shape of `contracts.md`."""
        return {
            "where": self.where,
            "given": self.given,
            "allowed": self.allowed,
            "remedy": self.remedy,
            "message": self.message,
        }

    def text(self) -> str:
        """Several lines for a terminal."""
        return f"error in {self.where}\n  given    {self.given}\n  allowed  {self.allowed}\n  remedy   {self.remedy}"


class RunFailed(PilotError):
    """Something that is not the person's input broke while running; trying again may help."""

    exit_code = ExitCode.FAILED


class Problems(PilotError):
    """Several problems found in one pass, so that a person mends them all at once."""

    def __init__(self, problems: Iterable[PilotError]) -> None:
        self.problems = list(problems)
        if not self.problems:
            raise ValueError("Problems needs at least one problem")
        first = self.problems[0]
        count = len(self.problems)
        where = first.where if count == 1 else f"{count} places ({', '.join(p.where for p in self.problems)})"
        super().__init__(where, first.given, first.allowed, first.remedy)

    @property
    def message(self) -> str:
        return " | ".join(p.message for p in self.problems)

    def as_dict(self) -> dict[str, object]:
        return super().as_dict() | {"problems": [p.as_dict() for p in self.problems]}

    def text(self) -> str:
        return "\n".join(p.text() for p in self.problems)
