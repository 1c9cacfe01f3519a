"""The portal: gatebook's own pages, an ordinary Starlette application behind nginx, for what is no hot path.

call.py is one request, and `record`, without which nothing is answered. app.py: path -> page. process.py: its
life. token.py grants; form.py reads what is posted, authenticate.py finds who asks, by a secret or an assertion.py
(throttle.py: how often), family.py keeps refresh tokens, desk.py what lasts, withdraw.py revokes, signing.py signs
login.py, logout.py and sessions.py are for browsers; party.py is a provider, transaction.py a login under way,
person_page.py what is seen, no.py what is refused.

To add a page, put its exact path into wire.PORTAL_PAGES (the gateway refuses every other), and a `Page` into
process.make_portal: an `async def (call: Call) -> Response` that calls `await call.record(reason, …)` exactly
once, before what it did has any effect, and answers then; without a record its client gets 503.
"""
