"""Where things lie below the state folder, and how its privacy is kept.

`state_dir` holds what must last. `runtime_dir` holds sockets and the gateway's log files: on a memory
file system where there is one, because those logs are plain text. Both are mode 0700 and ours; a looser
mode or a foreign owner is refused, never repaired.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from gatebook.errors import EnvironmentFault


@dataclass(frozen=True)
class Paths:
    """All paths of one deployment. Making this object touches no file."""

    state: Path

    @property
    def ledger(self) -> Path:
        """What an auditor may be handed: `log/` (public tree) and `segments/` (encrypted)."""
        return self.state / "ledger"

    @property
    def lock(self) -> Path:
        """The last signed checkpoint and the watermark; the ledger's own."""
        return self.state / "lock"

    @property
    def deks(self) -> Path:
        return self.state / "deks"

    @property
    def keys(self) -> Path:
        """log.key (signing), log.pub, reader.key (X25519), reader.pub, pseudonym.key, fingerprint.key."""
        return self.state / "keys"

    @property
    def vault(self) -> Path:
        return self.state / "vault.sqlite"

    @property
    def once(self) -> Path:
        """What was used and may not be used again: tokens' ids, proofs' ids, hashed."""
        return self.state / "once.sqlite"

    @property
    def api_keys(self) -> Path:
        return self.state / "api-keys.json"

    @property
    def clients(self) -> Path:
        """Who may ask our own token service for tokens: hashes of secrets."""
        return self.state / "clients.json"

    @property
    def portal_keys(self) -> Path:
        """What the portal signs with; nobody else reads it."""
        return self.keys / "portal" / "signing.json"

    @property
    def portal_jwks(self) -> Path:
        """The public halves of those, for the guards."""
        return self.state / "portal-jwks.json"

    @property
    def refresh(self) -> Path:
        """Families of refresh tokens, hashed."""
        return self.state / "refresh.sqlite"

    @property
    def sinks(self) -> Path:
        """How far each sink has come, and what it refused."""
        return self.state / "sinks"

    @property
    def last_use(self) -> Path:
        """An empty file for each API key that was used, of the time of its last use."""
        return self.state / "last-use"

    @property
    def revocations(self) -> Path:
        return self.state / "revocations.json"

    @property
    def grants(self) -> Path:
        """Roles that somebody holds for a while, asked for and approved."""
        return self.state / "grants.json"

    @property
    def holds(self) -> Path:
        """What may not be erased."""
        return self.state / "holds.json"

    @property
    def witnesses(self) -> Path:
        """What each witness did last."""
        return self.state / "witnesses.json"

    @property
    def retention(self) -> Path:
        """The time that retention trusts."""
        return self.state / "retention.json"

    @property
    def effective(self) -> Path:
        """The configuration in force, as JSON; what guards and recorder read."""
        return self.state / "effective.json"

    @property
    def checkpoints(self) -> Path:
        """Those that ranges of the log were exported with, so that the next export of a range is the same."""
        return self.state / "checkpoints"

    @property
    def nginx(self) -> Path:
        return self.state / "nginx"

    @property
    def runtime(self) -> Path:
        name = hashlib.sha256(str(self.state.resolve()).encode()).hexdigest()[:16]
        memory = Path("/dev/shm")  # noqa: S108 - a private folder below it is made and checked
        if memory.is_dir() and os.access(memory, os.W_OK):
            return memory / f"gatebook-{os.geteuid()}-{name}"
        return self.state / "run"

    @property
    def logs(self) -> Path:
        """The gateway's access.log and error.log."""
        return self.runtime / "logs"

    @property
    def recorder_socket(self) -> Path:
        return self.runtime / "recorder.sock"

    @property
    def control_socket(self) -> Path:
        return self.runtime / "control.sock"

    @property
    def portal_socket(self) -> Path:
        return self.runtime / "portal.sock"

    def guard_socket(self, number: int) -> Path:
        return self.runtime / f"guard-{number}.sock"


def make_private(folder: Path) -> None:
    """Make `folder` with mode 0700, or check that it is a folder, ours and 0700. Raises EnvironmentFault."""
    try:
        folder.mkdir(mode=0o700, parents=True)
        folder.chmod(0o700)  # whatever the umask was
        return
    except FileExistsError:
        check_private(folder)


def check_private(folder: Path) -> None:
    """Refuse a link, a foreign owner and any mode but 0700. Raises EnvironmentFault."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        raise EnvironmentFault(f"{folder}: no such folder; run `gatebook init` first") from None
    if not stat.S_ISDIR(found.st_mode):
        raise EnvironmentFault(f"{folder}: not a folder; move it away")
    if found.st_uid != os.geteuid():
        raise EnvironmentFault(
            f"{folder}: owned by uid {found.st_uid}, but this process runs as uid {os.geteuid()}; "
            f"run as its owner, or `chown` it"
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        raise EnvironmentFault(
            f"{folder}: mode {stat.S_IMODE(found.st_mode):04o} lets others in; run `chmod 700 {folder}`"
        )
