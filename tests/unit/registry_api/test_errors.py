from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from replicator.core import errors
from replicator.core.errors import ReplicatorError
from replicator.registry_api.errors import ANSWERS, DEFAULT_RETRY_AFTER, answer_to, render, render_unexpected

if TYPE_CHECKING:
    from collections.abc import Iterator

CODES = {
    *("BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN"),
    *("MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED"),
    *("DENIED", "UNSUPPORTED", "TOOMANYREQUESTS"),  # the specification's, code-1 to code-14
    *("TAG_INVALID", "UNKNOWN", "UNAVAILABLE"),  # the older specification's, which clients know too
}


def kinds(kind: type[ReplicatorError] = ReplicatorError) -> Iterator[type[ReplicatorError]]:
    for child in kind.__subclasses__():
        yield child
        yield from kinds(child)


ALL = [kind for kind in kinds() if kind.__module__ == errors.__name__]
LEAVES = [kind for kind in ALL if not kind.__subclasses__()]
INHERITED = {errors.BlobArchived, errors.UnsupportedManifest}
"""Leaves that are answered like their parent on purpose."""


def test_the_table_lists_every_leaf() -> None:
    assert {kind for kind in LEAVES if kind not in ANSWERS} == INHERITED


def test_the_table_lists_nothing_else() -> None:
    assert set(ANSWERS) <= {ReplicatorError, *ALL}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_its_answer(kind: type[ReplicatorError]) -> None:
    answer = answer_to(kind())
    assert answer.code in CODES
    assert 400 <= answer.status < 600
    assert (answer.status == 500) == (answer.code == "UNKNOWN")
    rendered = render(kind("what happened"))
    assert rendered.status == answer.status
    (entry,) = json.loads(rendered.body)["errors"]
    assert entry["code"] == answer.code
    assert entry["message"] == ("internal error" if answer.status == 500 else "what happened")


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_what_may_be_retried_says_when(kind: type[ReplicatorError]) -> None:
    rendered = render(kind())
    expected = kind.retryable and rendered.status in {429, 503, 504}
    assert rendered.headers.get("Retry-After") == (str(DEFAULT_RETRY_AFTER) if expected else None)


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.1, "1"), (1.0, "1"), (1.2, "2"), (3600.0, "3600")])
def test_the_wait_is_rounded_up_to_whole_seconds(seconds: float, header: str) -> None:
    assert render(errors.Throttled(retry_after=seconds)).headers["Retry-After"] == header


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (errors.UploadOutOfOrder(offset=10, location="/there"), {"Range": "0-9", "Location": "/there"}),
        (errors.UploadOutOfOrder(), {"Range": "0-0"}),
        (errors.RangeNotSatisfiable(size=5), {"Content-Range": "bytes */5"}),
        (errors.Unsupported(allow=("GET", "HEAD")), {"Allow": "GET, HEAD"}),
        (errors.Unsupported(), {}),
        (errors.ManifestNotFound(), {}),
    ],
    ids=repr,
)
def test_headers(error: ReplicatorError, headers: dict[str, str]) -> None:
    assert render(error).headers == headers


def test_an_unlisted_class_is_answered_like_its_parent() -> None:
    class Special(errors.ManifestNotFound):
        """a special one"""

    assert answer_to(Special()) == ANSWERS[errors.ManifestNotFound]


def test_missing_references_are_named_each() -> None:
    error = errors.MissingReferences(digests=tuple(f"sha256:{number:064}" for number in range(150)))
    entries = json.loads(render(error).body)["errors"]
    assert len(entries) == 100
    assert entries[0]["detail"] == {"digest": f"sha256:{0:064}"}
    assert {entry["code"] for entry in entries} == {"MANIFEST_BLOB_UNKNOWN"}


def test_a_bug_shows_nothing_of_itself() -> None:
    rendered = render_unexpected()
    assert rendered.status == 500
    assert json.loads(rendered.body) == {"errors": [{"code": "UNKNOWN", "message": "internal error"}]}


def test_any_text_can_be_sent() -> None:
    assert json.loads(render(errors.InvalidName("\ud800\x00\r\n")).body)["errors"][0]["message"] == "\ud800\x00\r\n"
