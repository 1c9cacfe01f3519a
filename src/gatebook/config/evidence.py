"""Sections of the configuration about the ledger as evidence: who outside vouches for it. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gatebook.config.base import Model
from gatebook.config.value import AuthorityUrl, Duration, FilePath


class Timestamps(Model):
    """Time stamps of the log's checkpoint (RFC 3161), stored beside it in `ledger/log/anchors/`."""

    url: Annotated[
        AuthorityUrl, Field(description="the time stamp authority: an http(s) URL; what it answers is signed")
    ]
    certificates: FilePath = Field(
        description="PEM file: the authority's root, and what its answers leave out; nobody else is believed"
    )
    every: Duration = Field(
        default=3600.0, ge=60, le=86400, description="how often; and once more when gatebook stops"
    )
