"""Every component in every state, to look at while changing the looks: /design, only where PILOT_DEBUG=1."""

from __future__ import annotations

from flask import Blueprint, render_template

from controlpilot.desk import desk
from controlpilot.views.refusals import NotFound

blueprint = Blueprint("design", __name__)


@blueprint.get("/design")
def index() -> str:
    """The page; 404 in ordinary use."""
    if not desk().settings.debug:
        raise NotFound("design", "PILOT_DEBUG is not set", "PILOT_DEBUG=1", "Set it and start the panel again.")
    return render_template("design.html", moment=desk().clock() - 200)
