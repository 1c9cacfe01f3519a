"""The recorder: the only process that writes the ledger.

service.py    the socket: who asks, who is answered, one group commit a turn of the loop
journal.py    what is appended, which decisions are open; memo.py: what makes both survive a kill
gatewaylog.py the gateway's two logs -> outcomes, and what will never come
tail.py       their files, with a cursor that counts each line exactly once
outcome.py    a line -> an outcome; words.py: which of the error log's words are about it
numbering.py  which lines are missing; worker.py: which process wrote them
vault.py      pseudonyms; once.py: what may happen only once
stamping.py   time stamps of the checkpoint; witnesses.py: cosignatures; both off everybody's way
clockwatch.py whether somebody has set the clock ahead
submit.py     for the command line: append while the recorder runs, or when it does not
process.py    start, stop, timers
"""
