"""What was erased: whether the log says so, on whose order, and whether it is gone.

In: ERASE entries, those signed for and those in the tail; of each segment what is stated and what its file is; of
records, with a key, which are removed and which orders come before each ERASE entry. An erasure that the log
explains is a note; a file that changed without one, an entry without its order, and what can still be read though
it was erased, are findings. Never takes an entry that nobody has signed for as an explanation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from gatebook.ledger.entry import Erase, Erased, Segment
from gatebook.ledger.recovery import chain
from gatebook.ledger.verify.report import Report, entries
from gatebook.ledger.verify.store import SegmentInfo

_GONE = {
    Erased.SUBJECT: "who some people are was erased: their pseudonyms stand for nobody any more",
    Erased.RECORD: "some records were erased: their segments were written anew, and the proofs hold",
    Erased.SEGMENT: "some segments were erased, keys and files: the proofs hold, the records are gone",
}


@dataclass
class Erasures:
    """`signed` and `unsigned`: ERASE entries by index, those of the tail being unsigned."""

    report: Report
    signed: list[tuple[int, Erase]] = field(default_factory=list)
    unsigned: list[tuple[int, Erase]] = field(default_factory=list)
    gone: list[tuple[int, int]] = field(default_factory=list)  # what erased segments held
    _of: dict[bytes, bytes] = field(default_factory=dict)  # a file's hash -> the segment it is or was
    _there: dict[bytes, SegmentInfo] = field(default_factory=dict)  # by segment id

    @cached_property
    def destroyed(self) -> set[bytes]:
        """The DEK ids that were to be destroyed. Asked for when all entries are known, as all the rest here."""
        return {entry.object_id for _, entry in self.signed if entry.kind == Erased.SEGMENT}

    @cached_property
    def _files(self) -> set[bytes]:
        return {entry.old_file_sha256 for _, entry in self.signed if entry.kind == Erased.SEGMENT}

    @cached_property
    def _links(self) -> dict[bytes, bytes]:
        return _links(self.signed)

    # -- level 1 ------------------------------------------------------------------------------------------
    def became(self, stated: Segment) -> list[bytes]:
        """What the file that is stated has been, one after the other; the last is what it has to be."""
        found = chain(stated.file_sha256, self._links)
        self._of.update(dict.fromkeys(found, stated.segment_id))
        return found

    def explains(self, stated: Segment, info: SegmentInfo) -> bool:
        """Whether that is all there is to say of a file that is not the one that was closed."""
        self._there[stated.segment_id] = info
        known = self.became(stated)
        name = f"segments/{info.path.name}"
        if info.sha256 == known[-1]:
            return len(known) > 1 and info.header.rewritten
        if info.sha256 in known:
            index = next(at for at, entry in self.signed if entry.old_file_sha256 == info.sha256)
            what = f"is the file from before the erasure of entry {index}"
            meaning = (
                "what was erased is in it: an erasure was interrupted and ends with the next start, or a copy "
            )
            self.report.found(1, "incomplete", name, what, meaning + "was put back")
            return True
        if info.sha256 in chain(known[-1], _links(self.unsigned)):
            what = "was written anew, and the entry that says why is not signed for yet"
            self.report.found(1, "incomplete", name, what, "verify again in a moment")
            return True
        return False

    def missing(self, stated: Segment) -> bool:
        """Whether a segment that is not there was erased."""
        if stated.dek_id not in self.destroyed and self._files.isdisjoint(self.became(stated)):
            return False
        self.gone.append((stated.first_index, stated.first_index + stated.entries))
        return True

    def finish(self, stated: Iterable[Segment], *, broken: bool) -> None:
        """`broken`: there are entries that nobody knows, which may have stated what an erasure names."""
        self.report.forgotten |= {entry.object_id for _, entry in self.signed if entry.kind == Erased.SUBJECT}
        deks = set()
        for one in stated:
            self.became(one)
            deks.add(one.dek_id)
        # One that was written anew has another key than the one that is stated.
        deks |= {e.object_id for _, e in self.signed if e.kind == Erased.SEGMENT and e.old_file_sha256 in self._of}
        for index, entry in self.signed:
            known = entry.kind != Erased.RECORD or entry.old_file_sha256 in self._of
            known = known and (entry.kind != Erased.SEGMENT or entry.object_id in deks)
            if not known and not broken:
                what = "ERASE names a segment that the log does not state"
                self.report.found(1, "tampered", f"entry {index}", what, "what it has erased cannot be told")
        for kind, count in sorted(Counter(entry.kind for _, entry in self.signed).items()):
            where = f"; {_together(self.gone)}" if kind == Erased.SEGMENT and self.gone else ""
            said = (
                _GONE[Erased(kind)] if kind in list(Erased) else f"erasure of a kind {kind} that is not known here"
            )
            self.report.note(f"{count} ERASE entries: {said}{where}")

    # -- level 2 ------------------------------------------------------------------------------------------
    def compare(self, removed: dict[int, bytes], opened: set[bytes]) -> None:
        """`removed`: of the records that are, by index, what names them; `opened`: whose keys are still there."""
        named = {entry.object_id for _, entry in self.signed if entry.kind == Erased.RECORD}
        soon = {entry.object_id for _, entry in self.unsigned if entry.kind == Erased.RECORD}
        for index, object_id in removed.items():
            if object_id in named:
                continue
            if object_id in soon:
                what, meaning = "was removed, and the entry that says so is not signed for yet", "verify again"
                self.report.found(2, "incomplete", f"entry {index}", what, f"{meaning} in a moment")
            else:
                meaning = "somebody who had its key took it out of the log"
                self.report.found(
                    2, "tampered", f"entry {index}", "was removed, and no ERASE entry says so", meaning
                )
        taken = set(removed.values())
        for index, entry in self.signed:
            if entry.kind == Erased.RECORD:
                info = self._there.get(self._of.get(entry.old_file_sha256, b""))
                still = info is not None and info.header.dek_id in opened and entry.object_id not in taken
            else:
                still = entry.kind == Erased.SEGMENT and entry.object_id in opened
            if still:
                what = "ERASE says that it is gone, but it can still be read"
                meaning = "an erasure was interrupted and ends with the next start, or a copy was put back"
                self.report.found(2, "incomplete", f"entry {index}", what, meaning)


def _links(of: Sequence[tuple[int, Erase]]) -> dict[bytes, bytes]:
    return {entry.old_file_sha256: entry.new_file_sha256 for _, entry in of if entry.kind == Erased.RECORD}


def _together(ranges: list[tuple[int, int]]) -> str:
    """Neighbouring ranges as one; only the first few, where there are many."""
    joined: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if joined and joined[-1][1] == first:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((first, end))
    more = f" and {len(joined) - 5} more ranges" if len(joined) > 5 else ""
    return ", ".join(entries(*one) for one in joined[:5]) + more
