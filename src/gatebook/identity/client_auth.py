"""Proves to a provider who asks it: client_secret_basic, client_secret_post, private_key_jwt.

In: the configuration's client, whose secret or key is read once. Out: form fields and header fields for one
request. RFC 6749, 2.3.1 (what goes into Basic is form-encoded first), RFC 7523 (an assertion lives ASSERTION_S,
names one audience and is used once). Never says a secret; a key that cannot be used is an EnvironmentFault.
"""

from __future__ import annotations

import base64
import json
import secrets
from typing import Final
from urllib.parse import quote_plus

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gatebook.config import secret
from gatebook.config.base import Secret
from gatebook.config.model import ProviderClient
from gatebook.errors import EnvironmentFault
from gatebook.identity.jwk import MIN_RSA_BITS, algorithms_of
from gatebook.identity.jws import sign

ASSERTION_S: Final = 60
_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

Fields = dict[str, str]


class ClientAuth:
    """`audience` is the assertion's, where the configuration names none."""

    def __init__(self, client: ProviderClient, audience: str) -> None:
        self._client = client
        self._audience = client.audience or audience
        self._secret = _text(client.secret) if client.secret is not None else ""
        self._key = _Key(client, client.key) if client.key is not None else None

    def prove(self, now: float) -> tuple[Fields, Fields]:
        """Form fields and header fields."""
        client_id = self._client.id
        if self._key is not None:
            claims: dict[str, str | int] = {
                "iss": client_id,
                "sub": client_id,
                "aud": self._audience,
                "jti": secrets.token_urlsafe(16),
                "iat": int(now),
                "exp": int(now) + ASSERTION_S,
            }
            assertion = self._key.sign(claims)
            told = {"client_id": client_id, "client_assertion_type": _ASSERTION_TYPE}
            return {**told, "client_assertion": assertion}, {}
        if self._client.method == "post":
            return {"client_id": client_id, "client_secret": self._secret}, {}
        both = f"{quote_plus(client_id)}:{quote_plus(self._secret)}"
        return {}, {"Authorization": f"Basic {base64.b64encode(both.encode()).decode()}"}


class _Key:
    """A private key, with what is said beside its signatures."""

    def __init__(self, client: ProviderClient, source: Secret) -> None:
        place, pem = source.file or source.env, _text(source)
        key = _private_key(pem)
        if key is None:
            what = (
                f"RSA of {MIN_RSA_BITS} bits or more, EC P-256, P-384 or P-521, or Ed25519, without a passphrase"
            )
            raise EnvironmentFault(f"{place}: no private key in PEM that can sign; make one: {what}")
        fitting = algorithms_of(key.as_dict(private=False))
        alg = client.algorithm or ("RS256" if "RS256" in fitting else min(fitting))
        if alg not in fitting:
            raise EnvironmentFault(f"{place}: this key signs by {', '.join(sorted(fitting))}, and not by {alg}")
        self._key = key
        self._header: Fields = {"alg": alg, "typ": "JWT"}
        if client.key_id is not None:
            self._header["kid"] = client.key_id

    def sign(self, claims: dict[str, str | int]) -> str:
        return sign(dict(self._header), json.dumps(claims).encode(), self._key).decode()


def _private_key(pem: str) -> RSAKey | ECKey | OKPKey | None:
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
        if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= MIN_RSA_BITS:
            return RSAKey.import_key(pem)
        if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
            return ECKey.import_key(pem)
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return OKPKey.import_key(pem)
    except (JoseError, ValueError, TypeError, UnsupportedAlgorithm):
        pass
    return None


def _text(source: Secret) -> str:
    """Raises EnvironmentFault."""
    try:
        text = secret.read(source).decode()
    except UnicodeDecodeError:
        text = "\0"
    # RFC 6749, appendix A.2, but for PEM's lines; whatever else is there has been put there by mistake.
    if not text.replace("\n", "").replace("\r", "").isprintable() or not text.isascii():
        raise EnvironmentFault(
            f"{source.file or source.env}: holds more than printable ASCII; it should hold a secret"
        )
    return text
