"""A log in memory, honest or not: signed checkpoints of any size, and proofs between them."""

from __future__ import annotations

from gatebook.ledger.consistency import prove_consistency
from gatebook.ledger.note import Checkpoint, Cosigner, Signer, sign_note
from gatebook.ledger.tree import Builder, leaf_hashes, perfect_root
from gatebook.witness.protocol import Request, encode_request

COSIGNER = Cosigner("witness.example/w1", bytes(31) + b"\7")
NOW = 1_800_000_000


class Log:
    """`fork_at`: from which entry on it tells another history than a log without."""

    def __init__(self, origin: str = "acme/node-1", seed: int = 1, fork_at: int | None = None) -> None:
        self.signer = Signer(origin, bytes([seed]) * 32)
        self._fork_at = fork_at

    def _hashes(self, size: int) -> list[bytes]:
        forked = size if self._fork_at is None else self._fork_at
        return leaf_hashes([b"%d" % n if n < forked else b"another %d" % n for n in range(size)])

    def checkpoint(self, size: int) -> Checkpoint:
        builder = Builder()
        builder.extend(self._hashes(size))
        return Checkpoint(self.signer.name, size, builder.root())

    def note(self, size: int) -> bytes:
        return sign_note(self.checkpoint(size).text(), self.signer)

    def proof(self, old: int, new: int) -> tuple[bytes, ...]:
        hashes = self._hashes(new)
        return tuple(
            prove_consistency(old, new, lambda level, k: perfect_root(hashes[k << level : (k + 1) << level]))
        )

    def ask(self, old: int, new: int) -> bytes:
        """The body of an honest request, but for what is wrong with the log."""
        return encode_request(Request(old, self.proof(old, new), self.note(new)))
