"""Every endpoint and every error code of the distribution specification, as the table in `cases` has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.cases import ANY, CASES, CODES, ENDPOINTS, Case
from tests.conformance.scene import Registries, Scene

if TYPE_CHECKING:
    from tests.support.wire_client import Answer


def test_every_endpoint_and_code_has_a_case() -> None:
    assert {case.id for case in CASES} == {*ENDPOINTS, *CODES}


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.id}: {case.title}")
async def test_answer(case: Case, registries: Registries, repository: str, other: str) -> None:
    async with registries[case.at].client() as client:
        scene = Scene(client, repository, other)
        if case.at in {"open", "strict"}:
            await scene.set_up()
        elif case.at == "throttled":
            await client.get("/v2/")
        method, _, target = _filled(case.request, scene).partition(" ")
        body, headers = case.send
        answer = await client.send(method, target, body=_bytes(body, scene), headers=headers)
        assert answer.status == case.status, answer
        _check_headers(answer, case, scene)
        _check_body(answer, case, scene)


def _check_headers(answer: Answer, case: Case, scene: Scene) -> None:
    for name, value in case.headers.items():
        found = ", ".join(answer.headers.getall(name, []))
        if value is None:
            assert name not in answer.headers
        elif value == ANY:
            assert found
        elif value.endswith("*"):
            assert found.startswith(_filled(value[:-1], scene))
            assert not found.endswith("/")
        else:
            assert found == _filled(value, scene)


def _check_body(answer: Answer, case: Case, scene: Scene) -> None:
    if case.request.startswith("HEAD"):
        assert not answer.body
    elif case.status >= 400:
        _check_errors(answer, case)
    if case.gives is not None:
        assert answer.body == _bytes(case.gives, scene)


def _check_errors(answer: Answer, case: Case) -> None:
    assert answer.headers["Content-Type"] == "application/json"
    errors = answer.json()["errors"]
    assert errors
    assert all(error["code"].replace("_", "").isupper() and error["message"] for error in errors)
    if case.id in CODES:
        assert set(answer.codes) == {CODES[case.id]}


def _filled(text: str, scene: Scene) -> str:
    return text.replace("{r}", "/v2/{s.repository}").format(s=scene)


def _bytes(given: str | bytes | None, scene: Scene) -> bytes | None:
    if given is None or isinstance(given, bytes):
        return given
    if given.startswith("{{"):
        return _filled(given, scene).encode()
    value: object = scene
    for part in given.split("."):
        value = getattr(value, part)
    assert isinstance(value, bytes)
    return value
