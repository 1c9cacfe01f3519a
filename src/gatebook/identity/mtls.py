"""The method `mtls`: client certificates of the provider's authorities.

In: the certificate of a TLS connection, whose key TLS has proved. Out: an Identity, or a Refusal. A certificate of
other authorities is nobody's here. What was verified is remembered until it expires or the revocation lists
change. Where there are to be lists, and they are missing, too old or not in order, nobody passes.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from cryptography import x509

from gatebook.config.model import MTLSProvider
from gatebook.errors import EnvironmentFault
from gatebook.identity import certificate as certificates
from gatebook.identity.binding import thumbprint
from gatebook.identity.chain import Authorities, constrains_names, expires_at
from gatebook.identity.crl_watch import CRLWatch
from gatebook.identity.jws import Unfit
from gatebook.identity.keyed import signed_sha256
from gatebook.identity.types import Bound, Credential, Identity, Refusal

MAX_CERTIFICATES = 16_384
_OF_SUBJECT = ("distinguished_name", "common_name", "organization", "organizational_unit", "user_id")


class MTLSMethod:
    takes = frozenset({"certificate"})

    def __init__(
        self, name: str, provider: MTLSProvider, authorities: Authorities, lists: CRLWatch | None
    ) -> None:
        self._name = name
        self._provider = provider
        self._authorities = authorities
        self._lists = lists
        self._roles = {subject: tuple(roles) for subject, roles in provider.roles.items()}
        self._known: OrderedDict[bytes, Identity] = OrderedDict()
        self._generation = 0

    def recall(self, credential: Credential, now: float) -> Identity | Refusal | None:
        self._forget_if_lists_changed()
        found = self._known.get(credential.sha256())
        if found is None or now >= found.expires_at:
            return None
        if not self._current(now):
            return Refusal("provider_unavailable", self._name)
        self._known.move_to_end(credential.sha256())
        return found

    async def verify(self, credential: Credential, now: float) -> Identity | Refusal:
        self._forget_if_lists_changed()
        try:
            chain = self._authorities.chain(certificates.read(credential.value), now)
        except Unfit as error:
            # Malformed or untrusted, it may be another provider's; else it is of ours, and unfit.
            theirs = error.reason in ("certificate_malformed", "certificate_untrusted")
            return Refusal(error.reason, None if theirs else self._name)
        if not self._current(now):
            return Refusal("provider_unavailable", self._name)
        if self._lists is not None and self._lists.value is not None and self._lists.value.revokes(chain):
            return Refusal("certificate_revoked", self._name)
        try:
            return self._remember(credential, self._identify(chain, credential))
        except Unfit as error:
            return Refusal(error.reason, self._name)

    def _forget_if_lists_changed(self) -> None:
        if self._lists is not None and self._lists.generation != self._generation:
            # Counted before the lists are looked at: what they say next is newer, never older.
            self._generation = self._lists.generation
            self._known.clear()

    def _current(self, now: float) -> bool:
        """Whether it is known who is revoked."""
        lists = self._lists
        return lists is None or (lists.value is not None and lists.value.current(now))

    def _identify(self, chain: list[x509.Certificate], credential: Credential) -> Identity:
        """Raises Unfit."""
        leaf, provider = chain[0], self._provider
        known = certificates.names(leaf)
        fields = (provider.subject, provider.roles_field, provider.groups_field)
        if constrains_names(chain) and any(field in _OF_SUBJECT for field in fields):
            raise Unfit("certificate_subject")
        subject = certificates.one(known, provider.subject)
        roles = (*self._roles.get(subject, ()), *certificates.several(known, provider.roles_field))
        return Identity(
            provider=self._name,
            method="mtls",
            subject=subject,
            roles=tuple(dict.fromkeys(roles)),
            groups=certificates.several(known, provider.groups_field),
            claims=certificates.claims(leaf, known),
            bound=Bound(x5t_s256=thumbprint(credential.value)),
            issued_at=leaf.not_valid_before_utc.timestamp(),
            credential_sha256=signed_sha256(credential),
            expires_at=expires_at(chain),
        )

    def _remember(self, credential: Credential, identity: Identity) -> Identity:
        self._known[credential.sha256()] = identity
        while len(self._known) > MAX_CERTIFICATES:
            self._known.popitem(last=False)
        return identity


def read_authorities(path: Path) -> Authorities:
    """Raises EnvironmentFault."""
    try:
        return Authorities(path.read_bytes())
    except OSError as error:
        raise EnvironmentFault(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:
        raise EnvironmentFault(f"{path}: {error}") from None
