from __future__ import annotations

import pytest
import typer

from replicator.core.errors import InvalidInput
from replicator.daemon.image_reference import parse_image
from replicator.daemon.replication_cli import parse_timeout

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "repository", "reference"),
    [
        ("app:1.0", "app", "1.0"),
        ("team/app:latest", "team/app", "latest"),
        (f"team/app@{DIGEST}", "team/app", DIGEST),
    ],
)
def test_an_image_is_a_repository_with_a_tag_or_digest(text: str, repository: str, reference: str) -> None:
    image = parse_image(text)
    assert (image.repository, image.reference) == (repository, reference)
    assert str(image) == text


@pytest.mark.parametrize("text", ["", "app", ":1", "app:", "App:1", "app@", "app@1.0", "localhost:5000/app", "a:b:c"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        parse_image(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60", 60), ("60s", 60), ("1.5m", 90), ("2h", 7200), ("1h30m", 5400), ("250ms", 0.25), ("0", 0), ("24h", 86400)],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_timeout(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "2d", "25h", "1e3", "inf", "nan", "\N{ARABIC-INDIC DIGIT ONE}s"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected a time such as"):
        parse_timeout(text)
