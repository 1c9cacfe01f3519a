"""What people see of the log: access records, each a decision joined with its outcome.

found.py     an access record, and everything else that reading a ledger gives; pure
join.py      records in order of their index -> access records, as they complete; pure
filter.py    which of them are wanted, and the words for it on a command line; pure
find.py      the newest, one request's, those still to come: out of a ledger's reader
pairing.py   what `verify` asks of records: each can be read, each allowed access has its outcome; pure
"""
