"""Bundles are made and verified by the command line, as people do it."""

from tests.cli.conftest import run

__all__ = ["run"]
