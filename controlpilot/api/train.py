"""Starting a run from a configuration."""

from __future__ import annotations

from controlpilot.api import Resource
from controlpilot.desk import desk
from controlpilot.views.drafts import Choices
from controlpilot.views.train import Started, start

resource = Resource("train", "Starting a run")
blueprint = resource.blueprint


@resource.post("/train", status=201, refuses=(409,))
def train(body: Choices) -> Started:
    """Make a run of this configuration and queue it.

    All problems come at once. 409: new pictures are still being measured; ask again in a moment.
    """
    return start(desk().workspace, body)
