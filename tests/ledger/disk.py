"""A disk that remembers every step, so that a crash can be played after any of them.

`Disk` does what `Files` does, in a real folder, without waiting for real syncs, and notes it. `after_crash`
builds, in another folder, what a file system may hold when the power went after the first k steps: all of
what was not synced, nothing of it, names without content, zeros, or any mixture. Synced is what `sync`,
`sync_folder` and `sync_all` have said so about.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from gatebook.ledger.files import Files


class Quick(Files):
    """The real disk, but nobody waits for it: a test that survives ends with what was written."""

    def sync(self, descriptor: int) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass

    def sync_all(self, path: Path) -> None:
        pass


class Step(NamedTuple):
    """One operation. `file` numbers the files that were made or reopened; `path` and `to` are below the root."""

    name: str
    file: int = 0
    path: str = ""
    to: str = ""
    data: bytes = b""
    length: int = 0


class Disk(Quick):
    """`fault` is asked before each step and may raise OSError in its place, having been told the step."""

    def __init__(self, root: Path, fault: Callable[[Step], None] | None = None) -> None:
        self.root = root
        self.steps: list[Step] = []
        self.fault = fault
        self._open: dict[int, int] = {}
        self._files = 0

    def _note(self, step: Step) -> None:
        if self.fault is not None:
            self.fault(step)
        self.steps.append(step)

    def mark(self, name: str, length: int) -> None:
        """Something that happened between two steps."""
        self.steps.append(Step(name, length=length))

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.root))

    def _opened(self, descriptor: int, step: str, path: Path) -> int:
        self._files += 1
        self._open[descriptor] = self._files
        self.steps.append(Step(step, self._files, self._name(path)))
        return descriptor

    def create(self, path: Path) -> int:
        if self.fault is not None:
            self.fault(Step("create", path=self._name(path)))
        return self._opened(super().create(path), "create", path)

    def reopen(self, path: Path) -> int:
        if self.fault is not None:
            self.fault(Step("reopen", path=self._name(path)))
        return self._opened(super().reopen(path), "reopen", path)

    def write(self, descriptor: int, data: bytes) -> None:
        self._note(Step("write", self._open[descriptor], data=bytes(data)))
        super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._note(Step("sync", self._open[descriptor]))

    def truncate(self, descriptor: int, length: int) -> None:
        self._note(Step("truncate", self._open[descriptor], length=length))
        super().truncate(descriptor, length)

    def rename(self, old: Path, new: Path) -> None:
        self._note(Step("rename", path=self._name(old), to=self._name(new)))
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        path.lstat()  # what is not there is no step
        self._note(Step("remove", path=self._name(path)))
        super().remove(path)

    def make_folder(self, path: Path) -> None:
        self._note(Step("make_folder", path=self._name(path)))
        super().make_folder(path)

    def remove_folder(self, path: Path) -> None:
        self._note(Step("remove_folder", path=self._name(path)))
        super().remove_folder(path)

    def sync_folder(self, path: Path) -> None:
        self._note(Step("sync_folder", path=self._name(path)))

    def sync_all(self, path: Path) -> None:
        self._note(Step("sync_all"))


Policy = Literal["kept", "lost", "names", "zeros", "mixed"]
POLICIES: tuple[Policy, ...] = ("kept", "lost", "names", "zeros", "mixed")
SECTOR = 64  # smaller than a real one, so that small frames are torn too


@dataclass
class _File:
    data: bytes = b""
    synced: bytes = b""
    forgotten: tuple[int, int] | None = None  # what a failed sync has dropped: no later one writes it

    def sync(self) -> None:
        self.synced = self.data
        if self.forgotten is not None:
            start, end = self.forgotten[0], min(self.forgotten[1], len(self.data))
            self.synced = self.data[:start] + bytes(max(0, end - start)) + self.data[end:]

    def truncate(self, length: int) -> None:
        self.data = self.data[:length]
        if self.forgotten is not None:
            start, end = self.forgotten
            self.forgotten = (start, min(end, length)) if start < length else None


@dataclass
class _Folder:
    """Names in a folder now, and each state they went through since they were last synced."""

    names: dict[str, _File | _Folder] = field(default_factory=dict)
    history: list[dict[str, _File | _Folder]] = field(default_factory=lambda: [{}])

    def change(self, name: str, what: _File | _Folder | None) -> None:
        if what is None:
            del self.names[name]
        else:
            self.names[name] = what
        self.history.append(dict(self.names))

    def sync(self) -> None:
        self.history = [dict(self.names)]


class _Model:
    """What the operating system knows, and what the disk is sure to."""

    def __init__(self, before: Path | None) -> None:
        self.root = _Folder()
        self.files: dict[int, _File] = {}
        if before is not None:
            self._load(before, self.root)

    def _load(self, path: Path, folder: _Folder) -> None:
        for child in path.iterdir():
            if child.is_dir():
                made = _Folder()
                self._load(child, made)
                folder.names[child.name] = made
            else:
                data = child.read_bytes()
                folder.names[child.name] = _File(data, data)
        folder.sync()

    def _folder(self, path: str) -> _Folder:
        at = self.root
        for part in Path(path).parts:
            found = at.names[part]
            assert isinstance(found, _Folder)
            at = found
        return at

    def _in(self, path: str) -> tuple[_Folder, str]:
        return self._folder(str(Path(path).parent)), Path(path).name

    def play(self, step: Step) -> None:
        match step.name:
            case "create":
                folder, name = self._in(step.path)
                self.files[step.file] = _File()
                folder.change(name, self.files[step.file])
            case "reopen":
                folder, name = self._in(step.path)
                found = folder.names[name]
                assert isinstance(found, _File)
                self.files[step.file] = found
            case "write":
                self.files[step.file].data += step.data
            case "truncate":
                self.files[step.file].truncate(step.length)
            case "sync":
                self.files[step.file].sync()
            case "forget":
                file = self.files[step.file]
                file.forgotten = (len(file.synced), len(file.data))
            case "rename":
                folder, name = self._in(step.path)
                target, to = self._in(step.to)
                assert folder is target, "all renames are within a folder"
                folder.names[to] = folder.names.pop(name)
                folder.history.append(dict(folder.names))
            case "remove" | "remove_folder":
                folder, name = self._in(step.path)
                folder.change(name, None)
            case "make_folder":
                folder, name = self._in(step.path)
                folder.change(name, _Folder())
            case "sync_folder":
                self._folder(step.path).sync()
            case "sync_all":
                self._sync_all(self.root)

    def _sync_all(self, folder: _Folder) -> None:
        folder.sync()
        for what in folder.names.values():
            if isinstance(what, _Folder):
                self._sync_all(what)
            else:
                what.sync()

    def build(self, target: Path, policy: Policy, chance: random.Random, folder: _Folder | None = None) -> None:
        folder = folder or self.root
        names = folder.names
        if policy == "lost":
            names = folder.history[0]
        elif policy == "mixed":
            names = chance.choice(folder.history)
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, what in names.items():
            if isinstance(what, _Folder):
                self.build(target / name, policy, chance, what)
            else:
                (target / name).write_bytes(_content(what, policy, chance))


def _content(file: _File, policy: Policy, chance: random.Random) -> bytes:
    data, synced = file.data, file.synced
    if policy == "kept" or data == synced:
        return data
    if policy in ("lost", "names"):
        return synced
    if not data.startswith(synced):  # truncated since, and perhaps written to
        return data if policy == "zeros" else chance.choice([data, synced])
    fresh = data[len(synced) :]
    if policy == "zeros":
        return synced + bytes(len(fresh))
    sectors = [fresh[at : at + SECTOR] for at in range(0, len(fresh), SECTOR)]
    kept = [sector if chance.random() < 0.6 else bytes(len(sector)) for sector in sectors]
    return synced + b"".join(kept)[: chance.choice([len(fresh), chance.randrange(len(fresh) + 1)])]


def after_crash(
    target: Path,
    steps: Sequence[Step],
    policy: Policy,
    *,
    before: Path | None = None,
    torn: int | None = None,
    seed: int = 0,
) -> None:
    """Build in `target` what is left of `steps`, which began on a copy of `before`.

    `torn`: of the last step, a write, only so many bytes.
    """
    model = _Model(before)
    for step in steps[:-1]:
        model.play(step)
    if steps:
        last = steps[-1]
        model.play(last if torn is None else last._replace(data=last.data[:torn]))
    model.build(target, policy, random.Random(seed))
