"""What every section of the configuration is: frozen, without unknown keys; and how it names a secret. Pure."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gatebook.config.value import EnvironmentName, FilePath


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False)


class Secret(Model):
    """A secret, read where it is needed and never written here: exactly one of the two."""

    env: EnvironmentName | None = Field(
        default=None, description="the variable of gatebook's environment that holds it"
    )
    file: FilePath | None = Field(
        default=None,
        description="the file that holds it, nobody else's to read; a last line break is not part of it",
    )

    @model_validator(mode="before")
    @classmethod
    def _never_literal(cls, value: Any) -> Any:
        if not isinstance(value, (dict, Secret)):
            raise ValueError("expected {env: NAME} or {file: path}, found something else")  # which is not shown
        return value

    @model_validator(mode="after")
    def _check(self) -> Secret:
        if (self.env is None) == (self.file is None):
            raise ValueError("expected env or file, found both or none of them")
        return self
