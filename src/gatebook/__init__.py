"""gatebook: an API access proxy whose access logs stand up in an audit.

The words this code uses, one word a concept:

access record   a decision joined with its outcome; what people see, search and export
anchor          an entry that names the receipt of somebody outside: a time stamp, cosignatures
checkpoint      the signed size and root of the ledger at a moment
cosignature     a witness's signature, with a time, under a log's checkpoint
credential      what a client presents: a token, an API key
decision        the record of what the guard ruled, durable before the request is forwarded
entry           one leaf of the ledger's public Merkle tree
finding         something that verification found wrong: tampered, damaged or incomplete
frame           a unit of a segment: what one group commit wrote
gateway         nginx, as configured and run by us
grant           a role that somebody holds for a while, asked for by one and approved by another
guard           the process that decides
hold            what forbids erasing: everything, a time, or what one person did
identity        who a credential belongs to, on which provider's word
kept file       a small document that processes go by: read strictly, replaced as a whole, watched
limit           how often a caller may do something; state of it at a decision
memo            clear bytes of the recorder's that become durable with a frame, or not at all
origin          the ledger's name: `<deployment>/<node>`
outcome         the record of what came of a decision
reason          one word out of a closed list for why a decision fell as it did
record          the exact JSON bytes that an entry commits to
recorder        the process that alone writes the ledger
replay          the judging of recorded decisions under another policy
route           a path template with methods, an upstream and rules
rule            one line of a route's `deny` or `allow`
segment         a file of frames: the write-ahead log and the encrypted store in one
shadow          of a rule: evaluated and recorded, not enforced
time stamp      an authority's word that a checkpoint was there at a time (RFC 3161); a stamp, for short
trial           the judging of a request that nobody has sent
upstream        a service behind the gateway
witness         somebody outside who remembers the last checkpoint of a log, and cosigns what continues it
"""

__version__ = "0.1.0"
