"""Witnesses (C2SP tlog-witness): who asks them, and a small one of our own.

protocol.py   a request and what it is answered with, as bytes: pairs
asking.py     one question to one witness over HTTP, and every answer that there may be
state.py      what our own witness must never forget, in a folder
service.py    our own witness over HTTP; process.py: its start and end

A *witness* keeps the last checkpoint of a log that it saw, and cosigns a newer one only when the older tree is
its beginning. Whoever holds a cosigned checkpoint knows that the log showed the witness the same history.
"""
