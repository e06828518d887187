"""Wrong passwords count against the address they come from: guessing is as slow as any other flood."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.daemon import Daemon, node
from tests.support.http_calls import basic, get

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("failed-logins")


def test_guessing_passwords_is_throttled(tmp_path: Path) -> None:
    auth = {"users": [{"name": "ada", "password": {"env": "ADA"}, "grants": [{"actions": ["pull"]}]}]}
    limits = {"requests_per_second": 0.01, "request_burst": 3}
    document = {"nodes": [node(auth=auth, limits=limits)]}
    with Daemon(tmp_path / "daemon", document, {"ADA": "the-right-one"}) as daemon:
        answers = [get(daemon.url("/v2/"), basic("ada", f"guess-{number}")) for number in range(5)]
    assert [answer.status for answer in answers] == [401, 401, 401, 429, 429]
    assert int(answers[-1].headers["Retry-After"]) >= 1


def test_a_hostile_host_header_gets_no_challenge_that_names_it(tmp_path: Path) -> None:
    auth = {"users": [{"name": "ada", "password": {"env": "ADA"}, "grants": [{"actions": ["pull"]}]}]}
    with Daemon(tmp_path / "daemon", {"nodes": [node(auth=auth)]}, {"ADA": "the-right-one"}) as daemon:
        answer = get(daemon.url("/v2/"), headers={"Host": 'evil.example/"x'})
    assert answer.status == 400
    assert "WWW-Authenticate" not in answer.headers
