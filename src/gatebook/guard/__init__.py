"""The guard: the process that decides about each request, and lets none pass that is not on record.

asked.py      what the gateway asks, parsed and typed
rules.py      one configuration, compiled: asked + identity -> verdict, and the decision record; no I/O
answer.py     a verdict -> the bytes that the gateway understands; pure
client.py     the connection to the recorder: one batch a turn of the loop, at most two on the way
service.py    the life of one request, from asked to answer
protocol.py   HTTP/1.1 with nginx alone, over a socket that only nginx can open
process.py    start, reload, stop
"""
