"""JSON calls to the API of a peer."""

from __future__ import annotations

import json

import pytest
from aiohttp import web

from replicator.core.errors import UpstreamContent, UpstreamNotFound
from replicator.upstream.client import MAX_JSON_ANSWER, UpstreamClient
from tests.support.upstreams import FakeRegistry, Fault, Hold

PATH = "/_replicator/v1/missing"


async def test_body_goes_out_and_answer_comes_back(upstream: FakeRegistry, client: UpstreamClient) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        return web.json_response({"got": await request.json(), "type": request.content_type})

    upstream.faults.on(PATH, Fault(answer=echo))
    answer = await client.request_json("POST", PATH, {"digests": ["a", "b"]})
    assert answer == {"got": {"digests": ["a", "b"]}, "type": "application/json"}


async def test_no_body_and_no_answer(upstream: FakeRegistry, client: UpstreamClient) -> None:
    upstream.faults.on(PATH, Fault(status=204))
    assert await client.request_json("DELETE", PATH) is None
    assert "content-type" not in upstream.requests[0].headers


async def test_query_is_kept_and_not_shown(upstream: FakeRegistry, client: UpstreamClient) -> None:
    with pytest.raises(UpstreamNotFound) as caught:
        await client.request_json("GET", f"{PATH}?secret=x")
    assert upstream.requests[0].query == {"secret": "x"}
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("body", [b"<html>", b"{", b"\xff", b"[" * 200_000])
async def test_answer_that_is_not_json_is_refused(upstream: FakeRegistry, client: UpstreamClient, body: bytes) -> None:
    upstream.faults.on(PATH, Fault(status=200, body=body))
    with pytest.raises(UpstreamContent, match="not JSON"):
        await client.request_json("GET", PATH)


async def test_endless_answer_is_cut_off(upstream: FakeRegistry, client: UpstreamClient) -> None:
    hold = Hold()
    body = json.dumps(" " * (MAX_JSON_ANSWER + 1000)).encode()
    upstream.faults.on(PATH, Fault(body=body, chunked=True, hold=hold, hold_after=MAX_JSON_ANSWER + 10))
    with pytest.raises(UpstreamContent, match="longer than"):
        await client.request_json("GET", PATH)
    hold.release()
