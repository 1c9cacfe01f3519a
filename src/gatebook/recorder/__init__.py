"""The recorder: the only process that writes the ledger.

service.py    the socket: who asks, who is answered, one group commit a turn of the loop
journal.py    what is appended, which decisions are open, and the memo that makes both survive a kill
tail.py       the gateway's log files, with a cursor that counts each line exactly once
outcome.py    a log line and the error log's words -> an outcome; pure
once.py       what may happen only once
vault.py      pseudonyms
submit.py     for the command line: append while the recorder runs, or when it does not
process.py    start, stop, timers
"""
