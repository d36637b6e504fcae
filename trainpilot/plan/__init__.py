"""What a run will take, before anything is spent: steps, memory, disk, time and cost. Never imports torch."""

from trainpilot.plan.make import make
from trainpilot.plan.plan import Plan, check

__all__ = ["Plan", "check", "make"]
