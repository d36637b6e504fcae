"""How one setting is declared: type, default, limits, unit and a line of help, in one place.

Validation, command line, form, JSON schema and documentation are all generated from these declarations.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def setting(default: Any, help: str, *, unit: str | None = None, **limits: Any) -> Any:
    """Declare one setting. limits are pydantic's (ge, gt, le, lt, min_length, pattern ...)."""
    extra: Any = {"unit": unit} if unit else None
    if isinstance(default, (list, dict)) or callable(default):
        factory = default if callable(default) else (lambda: type(default)(default))
        return Field(default_factory=factory, description=help, json_schema_extra=extra, **limits)
    return Field(default, description=help, json_schema_extra=extra, **limits)


class Section(BaseModel):
    """A table of settings. Unknown keys are refused: a misspelt setting must never be silently ignored."""

    model_config = ConfigDict(extra="forbid", validate_default=True, validate_assignment=True, allow_inf_nan=False)
