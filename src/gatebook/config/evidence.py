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


class Retention(Model):
    """How long records are kept. What is older is destroyed for good; the public tree stays."""

    records: Duration = Field(
        ge=86400, description="records that are older are destroyed, key and bytes, unless a hold forbids it"
    )


class Witnesses(Model):
    """Others' machines that remember the log's last checkpoint, and cosign what continues it."""

    policy: FilePath = Field(
        description="C2SP tlog-policy file: who they are, with their URLs, and how many of them are enough"
    )
    every: Duration = Field(
        default=10.0, ge=1, le=3600, description="how often they are asked, if there is a new checkpoint"
    )
    timeout: Duration = Field(default=5.0, ge=0.1, le=60, description="for one answer, to its last byte")
    ca: FilePath | None = Field(
        default=None, description="PEM file of the authorities for their TLS; without it, those of the system"
    )
