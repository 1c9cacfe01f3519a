"""The portal as a process: private socket, nothing without a record, reload, drain."""

from __future__ import annotations

import signal
import stat
import threading

from tests.portal.place import House, PortalProcess

from gatebook import wire


def test_nobody_else_can_open_the_socket(shared: House) -> None:
    found = shared.portal.path.stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600


def test_path_that_is_no_page_is_refused_on_record(shared: House) -> None:
    answer = shared.ask("/.gatebook/%74oken")
    assert answer.status_code == 404
    (found,) = [d for d in shared.decisions if d.request.path == "/.gatebook/%74oken"]
    assert found.decision.reason == "no_route"
    assert answer.headers["Gatebook-Receipt"] == f"acme/node-1/{answer.headers['Gatebook-Decision']}"


def test_field_of_the_gateway_given_twice_is_refused_without_a_word(shared: House) -> None:
    count = len(shared.records)
    answer = shared.ask("/.gatebook/token", headers={"gatebook-address": "10.0.0.1"})
    assert answer.status_code == 503
    assert len(shared.records) == count


def test_request_past_the_gateway_is_refused(shared: House) -> None:
    with shared.client() as client:
        assert client.post("/.gatebook/token").status_code == 503


def test_without_the_recorder_nothing_is_answered(own: House) -> None:
    own.recorder.do(own.recorder.twin.die)
    own.portal.until(lambda: not own.portal.status()["ready"], "the portal to notice")
    answer = own.ask("/.gatebook/nothing")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    own.recorder.run(own.recorder.twin.start())
    own.portal.wait()
    assert own.ask("/.gatebook/nothing").status_code == 404


def test_reload_takes_the_new_configuration(own: House) -> None:
    before = own.portal.status()["configuration"]
    own.place.put_in_force(**own.sections, audit={"address": "drop"})
    own.portal.signal(signal.SIGHUP)
    own.portal.until(lambda: own.portal.status()["configuration"] != before, "the new configuration")
    own.ask("/.gatebook/nothing")
    assert own.decisions[-1].client is None


def test_reload_of_what_cannot_be_used_keeps_the_old(own: House) -> None:
    before = own.portal.status()["configuration"]
    own.paths.effective.write_text("{}")
    own.portal.signal(signal.SIGHUP)
    own.portal.until(lambda: "kept the old configuration" in own.portal.said(), "a word about it")
    assert own.portal.status()["configuration"] == before


def test_term_ends_it_after_what_it_has_begun(own: House) -> None:
    own.recorder.do(lambda: setattr(own.recorder.twin, "holds", True))
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(own.ask("/.gatebook/nothing").status_code))
    asking.start()
    own.recorder.until(lambda: any(isinstance(m, wire.Append) for _, m in own.recorder.twin.held), "the record")
    own.portal.signal(signal.SIGTERM)
    own.recorder.do(own.recorder.twin.release)
    asking.join(20)
    assert answers == [404]
    assert own.portal.popen.wait(20) == 0


def test_socket_of_a_killed_one_is_in_nobodys_way(own: House) -> None:
    own.portal.signal(signal.SIGKILL)
    own.portal.popen.wait(20)
    assert own.portal.path.exists()
    own.portal = PortalProcess(own.place)
    own.portal.wait()
