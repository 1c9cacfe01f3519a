"""Sends what the ledger holds to where analysts look: late, if it must be, but never with a hole.

One process, a thread for each sink, each with a reader and a durable cursor of its own: `stream` gives records in
the ledger's order, joined; `delivery` batches, sends, retries, splits and moves the cursor once a destination has
acknowledged. A destination is one file that knows one wire format and keeps no state that matters. Never writes
to the ledger, never slows it, and loses nothing by a stop at any point: what was sent and not yet noted as sent is
sent again.
"""
