"""What every section of the configuration is: frozen, and without keys that nobody knows. Pure."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False)
