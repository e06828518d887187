"""Tokens of private ECR, asked for at an API that a test plays: botocore's own client, signature and errors."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from replicator.core.errors import ConfigurationError, UpstreamDenied
from replicator.upstream.credentials import KeptCredentials
from replicator.upstream.ecr_credentials import AwsIdentity, EcrCredentials
from replicator.upstream.endpoint import Credentials
from tests.support.clock import FakeClock
from tests.support.upstreams import Content, FakeServer

if TYPE_CHECKING:
    from aiohttp import web

TWELVE_HOURS = 12 * 3600


class FakeEcr(FakeServer):
    """Gives out tokens `AWS:token-1`, `AWS:token-2`, … that end after twelve hours, or what `answer` says."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock
        self.given = 0
        self.answer: Content | None = None

    async def serve(self, request: web.Request) -> Content:
        if self.answer is not None:
            return self.answer
        self.given += 1
        token = base64.b64encode(f"AWS:token-{self.given}".encode()).decode()
        data = {"authorizationToken": token, "expiresAt": self.clock.now() + TWELVE_HOURS}
        return answered(200, {"authorizationData": [data]})


def answered(status: int, document: object) -> Content:
    return Content(status, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(document).encode())


def search(ecr: FakeEcr, clock: FakeClock) -> EcrCredentials:
    return EcrCredentials("ours", AwsIdentity("eu-west-1", "AKIAEXAMPLE", "s3cret-key", None, ecr.url), clock)


async def test_a_token_is_a_user_and_a_password_until_half_its_life() -> None:
    clock = FakeClock()
    async with FakeEcr(clock) as ecr:
        source = KeptCredentials("ours", search(ecr, clock), clock)
        assert await source.get() == Credentials("AWS", "token-1")
        clock.advance(TWELVE_HOURS / 2 - 60)
        assert await source.get() == Credentials("AWS", "token-1")
        clock.advance(120)
        assert await source.get() == Credentials("AWS", "token-2")
        ecr.answer = answered(400, {"__type": "ThrottlingException"})
        clock.advance(TWELVE_HOURS / 2 + 60)
        assert await source.get() == Credentials("AWS", "token-2"), "it still holds"
        clock.advance(TWELVE_HOURS)
        with pytest.raises(UpstreamDenied, match="ours: the ECR API gives no token: it answered ThrottlingException"):
            await source.get()


async def test_the_request_is_signed_for_the_region() -> None:
    clock = FakeClock()
    async with FakeEcr(clock) as ecr:
        await search(ecr, clock)()
        [signed] = ecr.authorizations()
    assert "AKIAEXAMPLE/" in signed
    assert "/eu-west-1/ecr/aws4_request" in signed
    assert "s3cret-key" not in signed


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"authorizationData": []},
        {"authorizationData": [{"authorizationToken": "%%%", "expiresAt": 2e9}]},
        {"authorizationData": [{"authorizationToken": base64.b64encode(b"AWS").decode(), "expiresAt": 2e9}]},
        {"authorizationData": [{"authorizationToken": base64.b64encode(b"AWS:s3cret").decode()}]},
    ],
)
async def test_an_answer_without_a_token_is_a_denial(document: object) -> None:
    clock = FakeClock()
    async with FakeEcr(clock) as ecr:
        ecr.answer = answered(200, document)
        with pytest.raises(UpstreamDenied, match="the ECR API did not answer with a token") as caught:
            await search(ecr, clock)()
    assert "s3cret" not in str(caught.value)


async def test_an_api_that_is_not_there_is_a_denial() -> None:
    clock = FakeClock()
    identity = AwsIdentity("eu-west-1", "AKIAEXAMPLE", "s3cret-key", None, "http://127.0.0.1:1")
    with pytest.raises(UpstreamDenied, match=r"gives no token: it cannot be reached \(EndpointConnectionError\)"):
        await EcrCredentials("ours", identity, clock)()


def test_without_botocore_the_configuration_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"ours: its credentials need botocore: install replicator\[ecr\]"):
        EcrCredentials("ours", AwsIdentity("eu-west-1"), FakeClock())


def test_an_identity_shows_no_secret() -> None:
    shown = repr(AwsIdentity("eu-west-1", "AKIAEXAMPLE", "s3cret-key", "s3cret-session"))
    assert "s3cret" not in shown
