"""Small files that several processes go by while gatebook runs: API keys, revocations, and their like.

Each is one JSON document, read strictly and replaced as a whole (`file`), of which every process that goes by it
knows a change within a second (`watch`). What a document holds, and what it means, its owner says in a `Kind`.
"""

from gatebook.kept.file import Change, Content, Kind, Signature, change, read
from gatebook.kept.watch import POLL_S, Watch

__all__ = ["POLL_S", "Change", "Content", "Kind", "Signature", "Watch", "change", "read"]
