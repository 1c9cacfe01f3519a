"""Keyed hashes: how a person, a token or a credential is named where the name itself must not stand.

A name is `<kind>:<provider>:<value>`, the spelling that the recorder's vault uses for `subject`; a provider's name
has no colon, so no two names are spelt alike. A credential's fingerprint is what records hold of it. Nothing leads
back from either without the key; who has the key can test guesses. Reading the keys is the only I/O.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple

from cryptography.x509 import load_der_x509_certificate

from gatebook.errors import EnvironmentFault
from gatebook.identity.types import Credential
from gatebook.paths import Paths


class Keys(NamedTuple):
    """Two of the deployment's secrets, 32 bytes each."""

    names: bytes
    fingerprints: bytes

    def name(self, kind: str, provider: str, value: str) -> str:
        """64 hex digits."""
        name = f"{kind}:{provider}:{value}".encode("utf-8", "surrogateescape")
        return hmac.digest(self.names, name, "sha256").hex()

    def fingerprint(self, credential_sha256: bytes) -> str:
        """32 hex digits. Links a credential's uses, here and nowhere else."""
        return hmac.digest(self.fingerprints, credential_sha256, "sha256")[:16].hex()


def signed_sha256(credential: Credential) -> bytes:
    """What a fingerprint is made of: the part that its issuer signed, where there is one; else all of it.

    Of an ECDSA signature anybody can make a second one that holds too, in a token as in a certificate. So what
    names a credential, on record and when it is revoked, never depends on the signature.
    """
    value = credential.value
    if credential.method == "certificate":
        try:
            return hashlib.sha256(load_der_x509_certificate(value).tbs_certificate_bytes).digest()
        except ValueError:
            return credential.sha256()
    if value.startswith(b"eyJ") and value.count(b".") == 2:
        return hashlib.sha256(value[: value.rindex(b".")]).digest()
    return credential.sha256()


def read_keys(paths: Paths) -> Keys:
    """Raises EnvironmentFault."""
    return Keys(_read(paths, "pseudonym.key"), _read(paths, "fingerprint.key"))


def _read(paths: Paths, name: str) -> bytes:
    path = paths.keys / name
    try:
        key = path.read_bytes()
    except OSError as error:
        raise EnvironmentFault(f"{path}: {(error.strerror or str(error)).lower()}; restore it") from None
    if len(key) != 32:
        raise EnvironmentFault(f"{path}: not 32 bytes; restore it from a backup")
    return key
