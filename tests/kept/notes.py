"""A kind of kept file for tests: a list of words."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from gatebook import kept


class Notes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: Literal[1]
    words: tuple[str, ...]


def _check(notes: Notes) -> None:
    if len(set(notes.words)) != len(notes.words):
        raise ValueError("a word stands in it twice")


KIND = kept.Kind(
    title="notes", command="gatebook note", document=Notes, empty=Notes(version=1, words=()), check=_check
)


def quiet() -> None:
    """Announces to nobody."""


def add(path: Path, word: str, announce: object = quiet) -> None:
    assert callable(announce)
    with kept.change(path, KIND) as change:
        change.become(Notes(version=1, words=(*change.document.words, word)), announce)


def words(path: Path) -> tuple[str, ...]:
    return kept.read(path, KIND).document.words
