"""The portal: gatebook's own pages, an ordinary Starlette application behind nginx, for what is no hot path.

call.py          one request: what was asked, its body, and `record`, without which nothing is answered
app.py           path -> page; the application
token.py         the token service: what is granted. form.py reads what is posted, authenticate.py finds who asks
                 (throttle.py: how often somebody may fail), family.py keeps refresh tokens, desk.py all that lasts
login.py         people with a browser: login, callback, logout; party.py is one provider and we as its client
                 (transaction.py: a login under way, person_page.py: what a person sees)
withdraw.py      revokes what was issued
signing.py       the keys that tokens are signed with, by schedule; metadata.py says what others may know
process.py       start, reload, stop

A page is added in two places: its exact path in wire.PORTAL_PAGES, so that the gateway serves it and refuses
every other path; and a `Page` in process.make_portal: an `async def (call: Call) -> Response` that calls `await
call.record(reason, …)` exactly once, before whatever it did has any effect, and then answers. A page that
answers without a record is a 503 to its client and a fault of ours. What a page needs for longer than a request
is an object that make_portal makes anew of each configuration.
"""
