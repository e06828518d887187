"""A request in the form in which AWS Signature Version 4 signs it: whoever writes it in two ways signs the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Collection

    from multidict import CIMultiDictProxy


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What a signature covers of a request, besides its body."""

    method: str
    target: str
    """Path and query, as they were sent."""
    headers: CIMultiDictProxy[str]
    is_secure: bool = False


def canonical_request(head: RequestHead, signed_headers: Collection[str], payload: str) -> str:
    """Return a request in the form that is signed."""
    path = head.target.partition("?")[0]
    return "\n".join(
        (
            head.method.upper(),
            quote(_without_dots(path).encode("utf-8", "surrogateescape"), safe="/~"),
            _canonical_query(head.target),
            *(f"{name}:{_canonical_header(head.headers.getall(name))}" for name in signed_headers),
            "",
            ";".join(signed_headers),
            payload,
        )
    )


def query_pairs(target: str) -> list[tuple[str, str]]:
    """Return the names and values of a request's query, in order."""
    return [
        (name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape"))
        for name, value in _query_bytes(target)
    ]


def _canonical_header(values: Collection[str]) -> str:
    return ",".join(" ".join(value.split()) for value in values)


def _canonical_query(target: str) -> str:
    pairs = (
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in _query_bytes(target)
        if name != b"X-Amz-Signature"
    )
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _query_bytes(target: str) -> list[tuple[bytes, bytes]]:
    query = target.encode("utf-8", "surrogateescape").partition(b"?")[2]
    parts = (part.partition(b"=") for part in query.split(b"&") if part)
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in parts]


def _without_dots(path: str) -> str:
    """Return a path without empty segments and those that are `.` or `..`."""
    found: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del found[-1:]
        elif part not in {"", "."}:
            found.append(part)
    ends_open = path.endswith("/") and found
    return f"/{'/'.join(found)}{'/' if ends_open else ''}"
