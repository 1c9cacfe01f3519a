"""What a KMS has to offer, in two calls. Another one is another class with these."""

from __future__ import annotations

from typing import Protocol


class Kms(Protocol):
    """`about` is authenticated with the plain text and not kept in the ciphertext: decrypt names it again."""

    def encrypt(self, plain: bytes, about: bytes) -> str:
        """Raises EnvironmentFault."""

    def decrypt(self, sealed: str, about: bytes) -> bytes:
        """Raises EnvironmentFault when the KMS refuses, does not answer, or the ciphertext is not its own."""
