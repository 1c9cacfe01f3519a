"""What people are told when a provider, the portal or the configuration is in trouble."""

from __future__ import annotations

import os
import signal

from tests.e2e.deployment import until
from tests.login.conftest import Place
from tests.login.idp import Browser

SESSION = "__Host-gatebook-session"


def test_portal_killed_during_a_login_and_the_login_still_ends(stopped_place: Place) -> None:
    place = stopped_place
    place.deployment.start()
    browser = Browser(place.deployment)
    url = place.idp.agree(browser.go())
    pid = place.deployment.pid("portal")
    os.kill(pid, signal.SIGKILL)
    until(
        lambda: place.deployment.status().get("ready") and place.deployment.pid("portal") != pid, "another portal"
    )
    assert browser.ask(url).status_code == 303
    assert browser.ask("/orders/7").status_code == 200
    # Its provider goes: who is logged in stays so, who would log in is told.
    place.idp.stop()
    assert browser.ask("/orders/7").status_code == 200
    answer = Browser(place.deployment).ask("/.gatebook/login?provider=people")
    assert answer.status_code in (303, 503)  # what was published is known for a while
    place.deployment.stop()
    place.deployment.start()
    answer = Browser(place.deployment).ask("/.gatebook/login?provider=people")
    assert (answer.status_code, place.reason(answer)) == (503, "provider_unavailable")
    assert "text/html" in answer.headers["Content-Type"]
    assert browser.ask("/orders/7").status_code == 200


def test_reload_that_shortens_sessions_or_takes_login_away_counts_for_those_that_are_there(
    stopped_place: Place,
) -> None:
    place = stopped_place
    place.deployment.start()
    browser = Browser(place.deployment)
    browser.log_in(place.idp)
    told = place.deployment.configuration["identity"]
    told["people"]["login"]["session_ttl"] = "10s"
    place.deployment.write()
    assert place.deployment.reload().returncode == 0
    until(lambda: browser.ask("/orders/7").status_code == 401, "the end of the session")
    assert place.reason(browser.ask("/orders/7")) == "token_too_old"
    again = Browser(place.deployment)
    again.log_in(place.idp)
    del told["people"]["login"]
    place.deployment.write()
    assert place.deployment.reload().returncode == 0
    answer = again.ask("/people/x", headers={"Sec-Fetch-Mode": "cors"})
    assert (answer.status_code, place.reason(answer)) == (401, "credential_missing")


def test_secret_that_is_not_there_is_said_before_anything_starts(stopped_place: Place) -> None:
    place = stopped_place
    (place.deployment.folder / "login.secret").unlink()
    done = place.deployment.cli("check", "-c", str(place.deployment.config), check=False)
    assert done.returncode != 0
    assert "identity.people.login.client.secret" in done.stdout + done.stderr
