"""The plan of a configuration before anything is spent, and what a configuration can say."""

from __future__ import annotations

from pydantic import BaseModel

from controlpilot.api import Resource
from controlpilot.desk import desk
from controlpilot.training_types import TrainingType, training_types
from controlpilot.views.drafts import Choices
from controlpilot.views.fields import Field, Group, dataset_fields, groups
from controlpilot.views.plan import LivePlan, look
from controlpilot.views.train import ProfileCard, profile_cards

resource = Resource("plan", "What a run would take, before anything is spent")
blueprint = resource.blueprint


class Form(BaseModel):
    """Everything a configuration can say: `groups` for the run, `dataset` for each dataset (`datasets.N.` before)."""

    groups: list[Group]
    dataset: list[Field]
    types: list[TrainingType]
    profiles: list[ProfileCard]


@resource.post("/plan")
def plan(body: Choices) -> LivePlan:
    """Resolve and plan a configuration.

    What is wrong with it is part of the answer (state "problems", all of them at once), not a refusal. "measuring":
    new pictures are being looked at; ask again.
    """
    return look(desk().workspace, body).live


@resource.get("/settings/schema")
def schema() -> Form:
    """Every setting with its type, default, limits, unit and help; training types; profiles."""
    return Form(
        groups=list(groups()),
        dataset=list(dataset_fields()),
        types=list(training_types().values()),
        profiles=profile_cards(desk().workspace),
    )
