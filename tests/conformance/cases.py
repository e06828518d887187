"""What the distribution specification promises, one row per promise.

The first column is the specification's own id (endpoints end-1 to end-14, error codes code-1 to code-14). The rows come
from its text, v1.1.1 and what was added to it since: upload cancel, `digest-algorithm`, `tag` parameters. In targets
and headers `{s.…}` is a part of the scene, and `{r}` stands for `/v2/{s.repository}`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core.media_types import OCI_INDEX, OCI_MANIFEST
from tests.support.wire_client import BLOB_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

ENDPOINTS = (
    *("end-1", "end-2", "end-3", "end-4a", "end-4b", "end-4c", "end-5", "end-6", "end-7a", "end-7b"),
    *("end-8a", "end-8b", "end-9", "end-10", "end-11", "end-12a", "end-12b", "end-13", "end-14"),
)
CODES = {
    "code-1": "BLOB_UNKNOWN",
    "code-2": "BLOB_UPLOAD_INVALID",
    "code-3": "BLOB_UPLOAD_UNKNOWN",
    "code-4": "DIGEST_INVALID",
    "code-5": "MANIFEST_BLOB_UNKNOWN",
    "code-6": "MANIFEST_INVALID",
    "code-7": "MANIFEST_UNKNOWN",
    "code-8": "NAME_INVALID",
    "code-9": "NAME_UNKNOWN",
    "code-10": "SIZE_INVALID",
    "code-11": "UNAUTHORIZED",
    "code-12": "DENIED",
    "code-13": "UNSUPPORTED",
    "code-14": "TOOMANYREQUESTS",
}


@dataclass(frozen=True)
class Case:
    """A request, and what the specification says about its answer."""

    id: str
    title: str
    request: str
    status: int
    headers: Mapping[str, str | None] = field(default_factory=dict)
    """Headers of the answer: exactly this, ANY value, `…*` for a beginning, None for none."""
    send: tuple[bytes | str | None, Mapping[str, str]] = (None, {})
    """Body, as bytes or as the name of a part of the scene, and headers."""
    gives: bytes | str | None = None
    """Body of the answer, as bytes, as text that names parts of the scene, or as the name of a part of it."""
    at: str = "open"
    """The registry that is asked."""


def chunk(content_range: str) -> Mapping[str, str]:
    """Return the headers of a chunk."""
    return {**OCTETS, "Content-Range": content_range}


def tags(*names: str) -> str:
    """Return a tag list of the scene's repository."""
    return '{{"name":"{s.repository}","tags":' + json.dumps(names, separators=(",", ":")) + "}}"


ANY = ""
OCTETS = {"Content-Type": BLOB_TYPE}
OCI_IMAGE = {"Content-Type": OCI_MANIFEST}
READER = {"Authorization": "Basic cmVhZGVyOnNlY3JldA=="}
TOO_LARGE = b"{}" + b" " * 8 * 2**20
NO_REFERRERS = b'{"schemaVersion":2,"mediaType":"' + OCI_INDEX.encode() + b'","manifests":[]}'

# fmt: off
CASES = [
    # which API this is
    Case("end-1", "the API is here", "GET /v2/", 200, {"Docker-Distribution-Api-Version": "registry/2.0"}),
    Case("end-1", "also without the slash", "GET /v2", 200),
    Case("end-1", "also for HEAD", "HEAD /v2/", 200),
    Case("end-1", "callers are asked who they are", "GET /v2/", 401, {"WWW-Authenticate": ANY}, at="guarded"),
    Case("end-1", "known callers are let in", "GET /v2/", 200, send=(None, READER), at="guarded"),
    # pull a blob
    Case("end-2", "GET gives the bytes", "GET {r}/blobs/{s.blob}", 200,
         {"Docker-Content-Digest": "{s.blob}", "Content-Length": "2048", "Content-Type": ANY}, gives="content"),
    Case("end-2", "HEAD gives size and digest", "HEAD {r}/blobs/{s.blob}", 200,
         {"Docker-Content-Digest": "{s.blob}", "Content-Length": "2048"}),
    Case("end-2", "an absent blob is not found", "GET {r}/blobs/{s.absent}", 404),
    Case("end-2", "HEAD of an absent blob has no body", "HEAD {r}/blobs/{s.absent}", 404, gives=b""),
    Case("end-2", "a blob elsewhere is not here", "GET {r}/blobs/{s.elsewhere}", 404),
    Case("end-2", "a digest may be percent-encoded",
         "HEAD {r}/blobs/{s.escaped_blob}", 200),
    # pull a manifest
    Case("end-3", "GET by tag gives the exact bytes", "GET {r}/manifests/v1", 200,
         {"Docker-Content-Digest": "{s.image.digest}", "Content-Type": OCI_MANIFEST}, gives="image.manifest"),
    Case("end-3", "GET by digest gives the exact bytes", "GET {r}/manifests/{s.image.digest}", 200,
         {"Docker-Content-Digest": "{s.image.digest}", "Content-Type": OCI_MANIFEST}, gives="image.manifest"),
    Case("end-3", "HEAD by tag gives type, digest and size", "HEAD {r}/manifests/v1", 200,
         {"Docker-Content-Digest": "{s.image.digest}", "Content-Type": OCI_MANIFEST, "Content-Length": ANY}, gives=b""),
    Case("end-3", "HEAD by digest", "HEAD {r}/manifests/{s.image.digest}", 200, {"Content-Length": ANY}),
    Case("end-3", "what the client accepts changes no byte", "GET {r}/manifests/v1", 200,
         send=(None, {"Accept": OCI_INDEX}), gives="image.manifest"),
    Case("end-3", "an absent tag is not found", "GET {r}/manifests/v3", 404),
    Case("end-3", "an absent digest is not found", "GET {r}/manifests/{s.absent}", 404),
    Case("end-3", "HEAD of an absent tag has no body", "HEAD {r}/manifests/v3", 404, gives=b""),
    Case("end-3", "a tag that cannot be is not found", "GET {r}/manifests/.INVALID", 404),
    Case("end-3", "a digest that cannot be is refused", "GET {r}/manifests/sha256:baddigeststring", 400),
    Case("end-3", "an unknown repository has no manifests", "GET /v2/never/pushed/manifests/v1", 404),
    # begin an upload
    Case("end-4a", "POST opens a session", "POST {r}/blobs/uploads/", 202, {"Location": ANY}),
    Case("end-4a", "the session's place is relative", "POST {r}/blobs/uploads/", 202,
         {"Location": "{r}/blobs/uploads/*"}),
    Case("end-4a", "also without the last slash", "POST {r}/blobs/uploads", 202, {"Location": ANY}),
    Case("end-4b", "POST with a digest stores the blob", "POST {r}/blobs/uploads/?digest={s.fresh_digest}", 201,
         {"Location": "{r}/blobs/{s.fresh_digest}", "Docker-Content-Digest": "{s.fresh_digest}"},
         send=("fresh", OCTETS)),
    Case("end-4b", "other bytes than the digest's are refused", "POST {r}/blobs/uploads/?digest={s.absent}", 400,
         send=("fresh", OCTETS)),
    Case("end-4b", "an unsupported digest is refused",
         "POST {r}/blobs/uploads/?digest=md5:d41d8cd98f00b204e9800998ecf8427e", 400, send=("fresh", OCTETS)),
    Case("end-4c", "a session may name its algorithm", "POST {r}/blobs/uploads/?digest-algorithm=sha512", 202,
         {"Location": ANY}),
    Case("end-4c", "an unsupported algorithm is refused", "POST {r}/blobs/uploads/?digest-algorithm=md5", 400),
    # add a chunk
    Case("end-5", "the next chunk is taken", "PATCH {s.session}", 202, {"Location": ANY, "Range": "0-14"},
         send=(b"abcde", chunk("10-14"))),
    Case("end-5", "a stream is taken", "PATCH {s.session}", 202, {"Location": ANY, "Range": "0-14"},
         send=(b"abcde", OCTETS)),
    Case("end-5", "a chunk out of order is refused", "PATCH {s.session}", 416, {"Range": "0-9"},
         send=(b"abcde", chunk("20-24"))),
    Case("end-5", "a chunk that came already is refused", "PATCH {s.session}", 416, {"Range": "0-9"},
         send=(b"01234", chunk("0-4"))),
    Case("end-5", "a chunk of another length is refused", "PATCH {s.session}", 400, send=(b"abcde", chunk("10-12"))),
    Case("end-5", "an unknown session is not found", "PATCH {r}/blobs/uploads/none", 404, send=(b"abcde", OCTETS)),
    # close a session
    Case("end-6", "a session closes under its digest", "PUT {s.session}?digest={s.received_digest}", 201,
         {"Location": "{r}/blobs/{s.received_digest}", "Docker-Content-Digest": "{s.received_digest}"},
         send=(b"", OCTETS)),
    Case("end-6", "a last chunk comes with it", "PUT {s.session}?digest={s.extended_digest}", 201, {"Location": ANY},
         send=(b"abcde", chunk("10-14"))),
    Case("end-6", "a last chunk out of order is refused", "PUT {s.session}?digest={s.extended_digest}", 416,
         {"Range": "0-9"}, send=(b"abcde", chunk("11-15"))),
    Case("end-6", "the wrong digest is refused", "PUT {s.session}?digest={s.absent}", 400, send=(b"", OCTETS)),
    Case("end-6", "a malformed digest is refused", "PUT {s.session}?digest=sha256:zz", 400, send=(b"", OCTETS)),
    Case("end-6", "a missing digest is refused", "PUT {s.session}", 400, send=(b"", OCTETS)),
    Case("end-6", "an unknown session is not found", "PUT {r}/blobs/uploads/none?digest={s.absent}", 404,
         send=(b"", OCTETS)),
    # push a manifest
    Case("end-7a", "a tag is set", "PUT {r}/manifests/v9", 201,
         {"Location": "{r}/manifests/{s.image.digest}", "Docker-Content-Digest": "{s.image.digest}",
          "OCI-Subject": None}, send=("image.manifest", OCI_IMAGE)),
    Case("end-7a", "a digest is pushed", "PUT {r}/manifests/{s.image.digest}", 201, {"Location": ANY},
         send=("image.manifest", OCI_IMAGE)),
    Case("end-7a", "a subject is acknowledged", "PUT {r}/manifests/signature", 201, {"OCI-Subject": "{s.image.digest}"},
         send=("artifact.manifest", OCI_IMAGE)),
    Case("end-7a", "other bytes than the digest's are refused", "PUT {r}/manifests/{s.absent}", 400,
         send=("image.manifest", OCI_IMAGE)),
    Case("end-7a", "a malformed digest is refused", "PUT {r}/manifests/sha256:baddigeststring", 400,
         send=("image.manifest", OCI_IMAGE)),
    Case("end-7a", "a malformed tag is refused", "PUT {r}/manifests/.hidden", 400, send=("image.manifest", OCI_IMAGE)),
    Case("end-7a", "an oversized manifest is refused", "PUT {r}/manifests/big", 413, send=(TOO_LARGE, OCI_IMAGE)),
    Case("end-7b", "tags come with a digest", "PUT {r}/manifests/{s.image.digest}?tag=one&tag=two", 201,
         {"OCI-Tag": "one, two", "Location": ANY}, send=("image.manifest", OCI_IMAGE)),
    Case("end-7b", "one malformed tag refuses all", "PUT {r}/manifests/{s.image.digest}?tag=good&tag=.bad", 400,
         send=("image.manifest", OCI_IMAGE)),
    # list tags
    Case("end-8a", "all tags, in order", "GET {r}/tags/list", 200, {"Link": None}, gives=tags("v1", "v2")),
    Case("end-8a", "an unknown repository is not found", "GET /v2/never/pushed/tags/list", 404),
    Case("end-8b", "the first n, and where to go on", "GET {r}/tags/list?n=1", 200,
         {"Link": '<{r}/tags/list?n=1&last=v1>; rel="next"'}, gives=tags("v1")),
    Case("end-8b", "those after last", "GET {r}/tags/list?n=1&last=v1", 200, {"Link": None}, gives=tags("v2")),
    Case("end-8b", "none at all", "GET {r}/tags/list?n=0", 200, {"Link": None}, gives=tags()),
    Case("end-8b", "last need not exist", "GET {r}/tags/list?last=v1.5", 200, {"Link": None}, gives=tags("v2")),
    # delete a manifest or a tag
    Case("end-9", "a tag is deleted", "DELETE {r}/manifests/v1", 202),
    Case("end-9", "an image is deleted", "DELETE {r}/manifests/{s.image.digest}", 202),
    Case("end-9", "an absent tag is not found", "DELETE {r}/manifests/v3", 404),
    Case("end-9", "an absent image is not found", "DELETE {r}/manifests/{s.absent}", 404),
    # delete a blob
    Case("end-10", "a blob is deleted", "DELETE {r}/blobs/{s.blob}", 202),
    Case("end-10", "an absent blob is not found", "DELETE {r}/blobs/{s.absent}", 404),
    Case("end-10", "a blob elsewhere is not found", "DELETE {r}/blobs/{s.elsewhere}", 404),
    # mount a blob
    Case("end-11", "a blob is mounted", "POST {r}/blobs/uploads/?mount={s.elsewhere}&from={s.other}", 201,
         {"Location": "{r}/blobs/{s.elsewhere}", "Docker-Content-Digest": "{s.elsewhere}"}),
    Case("end-11", "the source may be left open", "POST {r}/blobs/uploads/?mount={s.elsewhere}", 201,
         {"Location": "{r}/blobs/{s.elsewhere}"}),
    Case("end-11", "an absent blob opens a session", "POST {r}/blobs/uploads/?mount={s.absent}&from={s.other}", 202,
         {"Location": "{r}/blobs/uploads/*"}),
    Case("end-11", "an absent source opens a session", "POST {r}/blobs/uploads/?mount={s.elsewhere}&from=never/pushed",
         202, {"Location": ANY}),
    Case("end-11", "an absent blob of no source too", "POST {r}/blobs/uploads/?mount={s.absent}", 202,
         {"Location": ANY}),
    # list referrers
    Case("end-12a", "an index of referrers", "GET {r}/referrers/{s.image.digest}", 200,
         {"Content-Type": OCI_INDEX, "OCI-Filters-Applied": None}),
    Case("end-12a", "an empty index for an unknown digest", "GET {r}/referrers/{s.absent}", 200,
         {"Content-Type": OCI_INDEX}, gives=NO_REFERRERS),
    Case("end-12a", "an empty index in an unknown repository", "GET /v2/never/pushed/referrers/{s.absent}", 200,
         {"Content-Type": OCI_INDEX}),
    Case("end-12a", "a malformed digest is refused", "GET {r}/referrers/sha256:zz", 400),
    Case("end-12b", "filtered by type",
         "GET {r}/referrers/{s.image.digest}?artifactType=application/vnd.example.signature", 200,
         {"OCI-Filters-Applied": "artifactType", "Content-Type": OCI_INDEX}),
    Case("end-12b", "a type nobody has", "GET {r}/referrers/{s.image.digest}?artifactType=application/vnd.nothing", 200,
         {"OCI-Filters-Applied": "artifactType"}, gives=NO_REFERRERS),
    # look at a session, cancel it
    Case("end-13", "how far a session is", "GET {s.session}", 204, {"Range": "0-9", "Location": ANY}),
    Case("end-13", "an unknown session is not found", "GET {r}/blobs/uploads/none", 404),
    Case("end-14", "a session is cancelled", "DELETE {s.session}", 204),
    Case("end-14", "an unknown session is not found", "DELETE {r}/blobs/uploads/none", 404),
    # error codes
    Case("code-1", "blob unknown", "GET {r}/blobs/{s.absent}", 404),
    Case("code-2", "blob upload invalid", "PATCH {s.session}", 416, send=(b"abcde", chunk("20-24"))),
    Case("code-2", "malformed chunk range", "PATCH {s.session}", 400, send=(b"abcde", chunk("tail"))),
    Case("code-3", "blob upload unknown", "PATCH {r}/blobs/uploads/none", 404, send=(b"abcde", OCTETS)),
    Case("code-4", "digest does not match", "PUT {s.session}?digest={s.absent}", 400, send=(b"", OCTETS)),
    Case("code-4", "digest malformed", "GET {r}/blobs/sha256:zz", 400),
    Case("code-5", "manifest refers to unknown blob", "PUT {r}/manifests/v3", 404, send=("stranger", OCI_IMAGE),
         at="strict"),
    Case("code-6", "manifest invalid", "PUT {r}/manifests/v3", 400, send=(b"{}", OCI_IMAGE)),
    Case("code-7", "manifest unknown", "GET {r}/manifests/v3", 404),
    Case("code-8", "name invalid", "GET /v2/UPPER/tags/list", 400),
    Case("code-9", "name unknown", "GET /v2/never/pushed/tags/list", 404),
    Case("code-10", "size invalid", "PUT {r}/manifests/big", 413, send=(TOO_LARGE, OCI_IMAGE)),
    Case("code-10", "range outside the blob", "GET {r}/blobs/{s.blob}", 416, {"Content-Range": "bytes */2048"},
         send=(None, {"Range": "bytes=5000-"})),
    Case("code-11", "unauthorized", "GET /v2/some/repository/tags/list", 401, {"WWW-Authenticate": ANY}, at="guarded"),
    Case("code-12", "denied", "POST /v2/some/repository/blobs/uploads/", 403, send=(None, READER), at="guarded"),
    Case("code-13", "unsupported", "POST {r}/manifests/v1", 405, {"Allow": "GET, HEAD, PUT, DELETE"}),
    Case("code-14", "too many requests", "GET /v2/", 429, {"Retry-After": ANY}, at="throttled"),
]
