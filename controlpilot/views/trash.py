"""The workspace's trash (`trainpilot.trash`) with the panel's refusals. Used by all views."""

from __future__ import annotations

from controlpilot.views.refusals import Conflict, NotFound
from trainpilot import trash
from trainpilot.trash import MOST_LISTED, Entry, Kept
from trainpilot.workspace import Workspace

__all__ = ["MOST_LISTED", "Entry", "Kept", "Trash"]


class Trash(trash.Trash):
    """The trash of a workspace: 404 for an entry that is not there, 409 where something new has its place."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace.root)

    def entry(self, ident: str) -> Entry:
        """One entry. Raises NotFound."""
        try:
            return super().entry(ident)
        except trash.NotKept as error:
            raise NotFound(error.where, error.given, error.allowed, error.remedy) from error

    def restore(self, ident: str) -> Entry:
        """Put an entry back as it was. Raises Conflict where something new has its place, and changes nothing then."""
        try:
            return super().restore(ident)
        except trash.Occupied as error:
            raise Conflict(error.where, error.given, error.allowed, error.remedy) from error
