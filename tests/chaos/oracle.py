"""What makes an answer wrong. Whatever is complete must be true; whatever was here must come, and promptly."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from replicator.core.digest import Digest, digest_of
from replicator.core.names import Tag
from tests.chaos.pulls import Kind
from tests.chaos.world import HUB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.pulls import Got, Pull
    from tests.support.wire_client import Answer

PROMPT = 2.0
"""Seconds within which what is here must be served, whatever the upstream does."""
DEADLINE = 5.0
"""Seconds within which every answer about a manifest or a list must have ended."""
BLOB_DEADLINE = 30.0
"""Seconds for a blob, of which the node tries every registry several times."""
MEMORY = 4.0
"""Seconds for which an answer that something does not exist may be remembered."""

_EXCUSES = {429, 502, 503, 504}


def deadline_of(pull: Pull) -> float:
    """Return the seconds that a pull may take."""
    return BLOB_DEADLINE if pull.kind in {Kind.BLOB, Kind.RANGE} else DEADLINE


class Oracle:
    """Judges every answer, and remembers what the node had and must have still."""

    def __init__(self, *, keeps: bool = True) -> None:
        self.keeps = keeps
        """Whether nothing is given up at present: what was served once is served again."""
        self.answers: Counter[str] = Counter()
        self.slowest_hit = 0.0
        self._held: set[tuple[str, str]] = set()

    def forget(self) -> None:
        """Expect nothing to be here."""
        self._held.clear()

    def holds(self, pull: Pull) -> bool:
        """Tell whether the node has what is asked for; to be asked before the pull."""
        return pull.thing in self._held

    def judge(self, pull: Pull, got: Got, absent_at: float | None, now: float, *, is_held: bool) -> Iterator[str]:
        """Yield what is wrong with an answer. `absent_at` is when the upstream last said that it has no such thing."""
        answer = got.answer
        if answer is None:
            self.answers[f"{pull.kind}: client left"] += 1
            return
        outcome = str(answer.status) if answer.whole else f"{answer.status} cut"
        self.answers[f"{pull.kind}: {outcome}"] += 1
        wrong = None
        if answer.status == 404:
            wrong = (
                None if absent_at is not None and now - absent_at < MEMORY + got.seconds else "404 for what is there"
            )
        elif answer.status in _EXCUSES:
            wrong = self._of_excuse(pull, answer)
        elif answer.status in {200, 206, 416}:
            wrong = _of_success(pull, answer) if answer.whole else None
        else:
            wrong = "status"
        if wrong is not None:
            yield f"{pull}: {wrong}: {answer!r}"
        yield from self._of_memory(pull, got, answer, is_held=is_held)

    def _of_memory(self, pull: Pull, got: Got, answer: Answer, *, is_held: bool) -> Iterator[str]:
        good = answer.whole and answer.status in {200, 206, 416}
        if is_held:
            if not good:
                yield f"{pull}: it is here, and did not come: {answer!r}"
            self.slowest_hit = max(self.slowest_hit, got.seconds)
            if got.seconds > PROMPT:
                yield f"{pull}: it is here, and came after {got.seconds:.1f} s"
        elif good and answer.status == 200 and self.keeps and _lasts(pull):
            self._held.add(pull.thing)

    @staticmethod
    def _of_excuse(pull: Pull, answer: Answer) -> str | None:
        if pull.method == "HEAD":
            return None
        if not answer.whole:
            return "an error that is cut"
        message = " ".join(str(error.get("message")) for error in answer.json()["errors"])
        return None if pull.known.upstream in message else "does not name the upstream"


def _lasts(pull: Pull) -> bool:
    """Tell whether what was served once is here from now on: a HEAD fetches no blob, and one rule follows upstream."""
    if pull.known.upstream != HUB:
        return False
    return pull.kind in {Kind.TAG, Kind.DIGEST} or (pull.kind is Kind.BLOB and pull.method == "GET")


def _of_success(pull: Pull, answer: Answer) -> str | None:
    checks = {
        Kind.TAG: _of_manifest,
        Kind.DIGEST: _of_manifest,
        Kind.BLOB: _of_blob,
        Kind.RANGE: _of_range,
        Kind.TAGS: _of_tags,
        Kind.REFERRERS: _of_referrers,
    }
    return checks[pull.kind](pull, answer)


def _of_manifest(pull: Pull, answer: Answer) -> str | None:
    stated = Digest(answer.headers.get("Docker-Content-Digest", ""))
    allowed = {Digest(pull.reference)} if pull.kind is Kind.DIGEST else pull.known.tags.get(Tag(pull.reference), set())
    if stated not in allowed:
        return "a digest that it never had"
    content, media_type = pull.known.manifests[stated]
    if answer.headers.get("Content-Type") != media_type:
        return "another type"
    if int(answer.headers["Content-Length"]) != len(content):
        return "another length"
    if pull.method == "GET" and (answer.body != content or digest_of(answer.body) != stated):
        return "other bytes"
    return None


def _of_blob(pull: Pull, answer: Answer) -> str | None:
    if pull.method == "HEAD" and "fwd=" in answer.headers["Cache-Status"]:
        return None  # of what is not here, the upstream alone can tell, and nothing proves it
    content = pull.known.blobs.get(Digest(pull.reference))
    if content is None:
        return "a blob that does not exist"
    if answer.headers.get("Docker-Content-Digest") != pull.reference:
        return "another digest"
    if int(answer.headers["Content-Length"]) != len(content):
        return "another length"
    return None if pull.method == "HEAD" or answer.body == content else "other bytes"


def _of_range(pull: Pull, answer: Answer) -> str | None:
    content = pull.known.blobs.get(Digest(pull.reference))
    assert pull.span is not None
    if content is None:
        return "a blob that does not exist"
    first, last = pull.span
    if answer.status == 416:
        return None if first >= len(content) else "416 for what is there"
    if answer.status != 206:
        return "the whole for a part"
    expected = content[first : last + 1]
    if answer.headers.get("Content-Range") != f"bytes {first}-{first + len(expected) - 1}/{len(content)}":
        return "another part"
    return None if answer.body == expected else "other bytes"


def _of_tags(pull: Pull, answer: Answer) -> str | None:
    document = answer.json()
    if document["name"] != (pull.known.name if pull.by_namespace else pull.known.local):
        return "another name"
    return None if set(document["tags"]) <= set(pull.known.tags) else "tags that it never had"


def _of_referrers(pull: Pull, answer: Answer) -> str | None:
    found = {descriptor["digest"] for descriptor in json.loads(answer.body)["manifests"]}
    return None if found <= pull.known.referrers.get(Digest(pull.reference), set()) else "referrers that it never had"
