"""One process per URL, on a store in memory; the beats are made fast."""

import json
import re
import time

import fsspec
import pytest

from vit_jax.remote import Remote
from vit_jax.run import lease
from vit_jax.run.lease import hold_lease
from vit_jax.types import UserError

URL = "memory://leases/run"
MEMORY = fsspec.filesystem("memory")


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(lease, "BEAT_S", 0.03)
    monkeypatch.setattr(lease, "EXPIRES_S", 0.3)
    yield
    MEMORY.store.clear()


@pytest.fixture
def places(tmp_path):
    """Folders that two machines have locked."""
    found = tmp_path / "one", tmp_path / "two"
    for place in found:
        place.mkdir()
    return found


def held():
    return json.loads(MEMORY.cat("/leases/run/.lease"))


def test_a_second_process_is_refused_while_the_first_one_lives(places, capsys):
    with hold_lease(Remote(URL), places[0], wait=False):
        who = held()["who"]
        with (
            pytest.raises(UserError, match=rf"^workdir {URL} is used by {re.escape(who)}; wait for it,"),
            hold_lease(Remote(URL), places[1], wait=False),
        ):
            pass
        assert who.startswith("process ")
        assert held()["who"] == who
    assert not MEMORY.exists("/leases/run/.lease")
    assert "watching for" in capsys.readouterr().out


def test_a_lease_that_no_longer_changes_is_taken(places):
    MEMORY.pipe(
        "/leases/run/.lease", b'{"id": "x", "who": "process 1 on another machine", "place": "there", "beat": 3}'
    )
    began = time.monotonic()
    with hold_lease(Remote(URL), places[0], wait=False):
        assert held()["id"] != "x"
    assert time.monotonic() - began > 0.3


def test_a_damaged_lease_is_taken_too(places):
    MEMORY.pipe("/leases/run/.lease", b"\xff[")
    with hold_lease(Remote(URL), places[0], wait=False):
        assert held()["beat"] >= 1


def test_a_lease_of_this_place_has_no_holder_and_is_taken_at_once(places, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRES_S", 1000.0)
    with hold_lease(Remote(URL), places[0], wait=False):
        left = MEMORY.cat("/leases/run/.lease")
    MEMORY.pipe("/leases/run/.lease", left)  # as after kill -9
    with hold_lease(Remote(URL), places[0], wait=False):
        pass


def test_who_has_lost_its_lease_finds_out_and_leaves_it_alone(places):
    with hold_lease(Remote(URL), places[0], wait=False) as mine:
        mine.check()
        MEMORY.pipe("/leases/run/.lease", b'{"id": "x", "who": "process 7"}')
        with pytest.raises(UserError, match=f"^workdir {URL} is now used by process 7; this process stops"):
            mine.check()
    assert held() == {"id": "x", "who": "process 7"}
    MEMORY.rm("/leases/run/.lease")
    with pytest.raises(UserError, match="was removed or moved"):
        mine.check()
