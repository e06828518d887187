from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from replicator.config.secrets import MAX_SECRET_BYTES, Secret, SecretRef, resolve_secret
from replicator.core.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "canary-5f2a91"


def test_a_secret_shows_itself_only_when_asked() -> None:
    secret = Secret(CANARY)
    assert secret.reveal() == CANARY
    for text in (repr(secret), str(secret), f"{secret}", f"{[secret]}", "%s" % secret):  # noqa: UP031
        assert CANARY not in text
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_secrets_are_equal_by_value() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1


def test_a_secret_comes_from_the_environment() -> None:
    assert resolve_secret(SecretRef(env="NAME"), {"NAME": CANARY}).reveal() == CANARY


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_comes_from_a_file_without_its_last_line_break(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(f" {CANARY} {ending}".encode())
    ref = SecretRef.model_validate({"file": str(path)})
    assert resolve_secret(ref, {}).reveal() == f" {CANARY} "


def test_the_file_of_a_secret_is_relative_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(CANARY)
    ref = SecretRef.model_validate({"file": "secret"}, context={"directory": tmp_path})
    assert resolve_secret(ref, {}).reveal() == CANARY


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "environment variable NAME is not set"),
        ({"NAME": ""}, "environment variable NAME is empty"),
        ({"NAME": f"{CANARY}\nx"}, "environment variable NAME holds more than one line"),
        ({"NAME": f"{CANARY}\x00"}, "environment variable NAME holds more than one line"),
        ({"NAME": f"{CANARY}\udcff"}, "environment variable NAME is not UTF-8 text"),
    ],
)
def test_a_missing_secret_is_named_but_not_shown(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve_secret(SecretRef(env="NAME"), environ)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (CANARY.encode() + b"\xff", "is not UTF-8 text"),
        (b"x" * (MAX_SECRET_BYTES + 1), f"is larger than {MAX_SECRET_BYTES} bytes"),
    ],
)
def test_a_bad_file_is_named_but_not_shown(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        resolve_secret(SecretRef.model_validate({"file": str(path)}), {})
    assert str(caught.value) == f"file {path} {message}"


@pytest.mark.parametrize(
    "literal",
    [CANARY, 5550199, [CANARY], {"env": CANARY}, {"env": 5550199}, {"file": 5550199}, {"env": "A", "file": "b"},
     {}, {"value": CANARY}, {"env": "A", "value": CANARY}, {"env": None}],
)  # fmt: skip
def test_a_literal_secret_is_refused_without_being_shown(literal: object) -> None:
    with pytest.raises(ValidationError) as caught:
        SecretRef.model_validate(literal)
    assert CANARY not in str(caught.value)
    assert "5550199" not in str(caught.value)
