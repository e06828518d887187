"""The one table from our errors to the distribution specification's codes and HTTP statuses.

A class that is not listed is answered like its nearest listed ancestor. A 5xx of our own making carries no text of
ours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from itertools import repeat
from typing import TYPE_CHECKING

from replicator.core import errors
from replicator.core.byte_range import session_range
from replicator.core.errors import ReplicatorError
from replicator.core.peer_messages import CLOCK_SKEW

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Answer:
    """A status with the specification's error code (`code-1` … `code-14`), or UNKNOWN or UNAVAILABLE for ours."""

    status: int
    code: str


ANSWERS: Mapping[type[ReplicatorError], Answer] = {
    ReplicatorError: Answer(500, "UNKNOWN"),
    errors.InvalidInput: Answer(400, "UNSUPPORTED"),
    errors.InvalidDigest: Answer(400, "DIGEST_INVALID"),
    errors.InvalidName: Answer(400, "NAME_INVALID"),
    errors.InvalidTag: Answer(400, "MANIFEST_INVALID"),
    errors.InvalidReference: Answer(400, "MANIFEST_INVALID"),
    errors.InvalidPolicy: Answer(400, "UNSUPPORTED"),
    errors.InvalidManifest: Answer(400, "MANIFEST_INVALID"),
    errors.ManifestSyntax: Answer(400, "MANIFEST_INVALID"),
    errors.ManifestTooLarge: Answer(413, "SIZE_INVALID"),
    errors.InvalidPagination: Answer(400, "UNSUPPORTED"),
    errors.UnsupportedEncoding: Answer(415, "UNSUPPORTED"),
    errors.InvalidUpload: Answer(400, "BLOB_UPLOAD_INVALID"),
    errors.BlobTooLarge: Answer(413, "SIZE_INVALID"),
    errors.EmptyUpload: Answer(400, "BLOB_UPLOAD_INVALID"),
    errors.LayerPartTooSmall: Answer(400, "BLOB_UPLOAD_INVALID"),
    errors.InvalidResourceTag: Answer(400, "UNSUPPORTED"),
    errors.TooManyResourceTags: Answer(400, "UNSUPPORTED"),
    errors.SizeMismatch: Answer(400, "SIZE_INVALID"),
    errors.DigestMismatch: Answer(400, "DIGEST_INVALID"),
    errors.LayerMismatch: Answer(400, "DIGEST_INVALID"),
    errors.UploadOutOfOrder: Answer(416, "BLOB_UPLOAD_INVALID"),
    errors.ClockSkew: Answer(400, "UNSUPPORTED"),
    errors.RangeNotSatisfiable: Answer(416, "SIZE_INVALID"),
    errors.InvalidLifecyclePolicy: Answer(400, "UNSUPPORTED"),
    errors.UnsupportedImageType: Answer(400, "UNSUPPORTED"),
    errors.ScanningMismatch: Answer(400, "UNSUPPORTED"),
    errors.NotFound: Answer(404, "UNSUPPORTED"),
    errors.PageNotFound: Answer(404, "UNSUPPORTED"),
    errors.RepositoryNotFound: Answer(404, "NAME_UNKNOWN"),
    errors.ManifestNotFound: Answer(404, "MANIFEST_UNKNOWN"),
    errors.ImageInaccessible: Answer(404, "MANIFEST_UNKNOWN"),
    errors.BlobNotFound: Answer(404, "BLOB_UNKNOWN"),
    errors.LayerNotFound: Answer(404, "BLOB_UNKNOWN"),
    errors.LayerInaccessible: Answer(404, "BLOB_UNKNOWN"),
    errors.UploadNotFound: Answer(404, "BLOB_UPLOAD_UNKNOWN"),
    errors.BackfillNotFound: Answer(404, "UNSUPPORTED"),
    errors.RegistryPolicyNotFound: Answer(404, "UNSUPPORTED"),
    errors.EventNotFound: Answer(404, "UNSUPPORTED"),
    errors.SinkNotFound: Answer(404, "UNSUPPORTED"),
    errors.RepositoryPolicyNotFound: Answer(404, "UNSUPPORTED"),
    errors.CatalogDataNotFound: Answer(404, "UNSUPPORTED"),
    errors.SigningConfigurationNotFound: Answer(404, "UNSUPPORTED"),
    errors.CacheRuleNotFound: Answer(404, "UNSUPPORTED"),
    errors.SecretNotFound: Answer(404, "UNSUPPORTED"),
    errors.TemplateNotFound: Answer(404, "UNSUPPORTED"),
    errors.LifecyclePolicyNotFound: Answer(404, "UNSUPPORTED"),
    errors.LifecyclePreviewNotFound: Answer(404, "UNSUPPORTED"),
    errors.ScanNotFound: Answer(404, "UNSUPPORTED"),
    errors.Conflict: Answer(409, "DENIED"),
    errors.DeclaredInFile: Answer(409, "DENIED"),
    errors.CacheRuleExists: Answer(409, "DENIED"),
    errors.CacheRuleLimit: Answer(409, "DENIED"),
    errors.UnsupportedUpstream: Answer(400, "UNSUPPORTED"),
    errors.SecretInaccessible: Answer(503, "UNAVAILABLE"),
    errors.SecretUndecipherable: Answer(503, "UNAVAILABLE"),
    errors.TemplateExists: Answer(409, "DENIED"),
    errors.RepositoryExists: Answer(409, "DENIED"),
    errors.RepositoryNotEmpty: Answer(409, "DENIED"),
    errors.LayerExists: Answer(409, "DENIED"),
    errors.LimitExceeded: Answer(403, "DENIED"),
    errors.PullTimeExclusionNotFound: Answer(404, "UNSUPPORTED"),
    errors.ImageExists: Answer(409, "DENIED"),
    errors.ImageReferenced: Answer(405, "UNSUPPORTED"),
    errors.StorageClassRefused: Answer(409, "DENIED"),
    errors.PullTimeExclusionExists: Answer(409, "DENIED"),
    errors.TagImmutable: Answer(400, "TAG_INVALID"),
    errors.BackfillInProgress: Answer(409, "DENIED"),
    errors.BackfillLimit: Answer(409, "DENIED"),
    errors.BackfillInvalidStatus: Answer(409, "DENIED"),
    errors.LifecyclePreviewInProgress: Answer(409, "DENIED"),
    errors.ImageArchived: Answer(409, "DENIED"),
    errors.ScanLimit: Answer(409, "DENIED"),
    errors.MissingReferences: Answer(404, "MANIFEST_BLOB_UNKNOWN"),
    errors.MissingImages: Answer(404, "MANIFEST_BLOB_UNKNOWN"),
    errors.MissingLayers: Answer(404, "MANIFEST_BLOB_UNKNOWN"),
    errors.AccessError: Answer(403, "DENIED"),
    errors.Unauthenticated: Answer(401, "UNAUTHORIZED"),
    errors.AuthorizationExpired: Answer(403, "DENIED"),
    errors.Denied: Answer(403, "DENIED"),
    errors.ReplicationDenied: Answer(403, "DENIED"),
    errors.Throttled: Answer(429, "TOOMANYREQUESTS"),
    errors.Unsupported: Answer(405, "UNSUPPORTED"),
    errors.LoopDetected: Answer(508, "UNSUPPORTED"),
    errors.CorruptBlob: Answer(500, "UNKNOWN"),
    errors.UpstreamError: Answer(502, "UNAVAILABLE"),
    errors.UpstreamNotFound: Answer(404, "MANIFEST_UNKNOWN"),
    errors.UpstreamDenied: Answer(502, "UNAVAILABLE"),
    errors.CredentialsUnavailable: Answer(502, "UNAVAILABLE"),
    errors.PermissionMissing: Answer(502, "UNAVAILABLE"),
    errors.UpstreamThrottled: Answer(429, "TOOMANYREQUESTS"),
    errors.UpstreamUnavailable: Answer(503, "UNAVAILABLE"),
    errors.UpstreamTimeout: Answer(504, "UNAVAILABLE"),
    errors.UpstreamContent: Answer(502, "UNAVAILABLE"),
    errors.UpstreamRefused: Answer(502, "UNAVAILABLE"),
    errors.UpstreamClockSkew: Answer(502, "UNAVAILABLE"),
    errors.StorageError: Answer(503, "UNAVAILABLE"),
    errors.StorageFull: Answer(507, "UNAVAILABLE"),
    errors.StorageUnavailable: Answer(503, "UNAVAILABLE"),
    errors.StorageInUse: Answer(503, "UNAVAILABLE"),
    errors.StorageVersion: Answer(503, "UNAVAILABLE"),
    errors.ShuttingDown: Answer(503, "UNAVAILABLE"),
    errors.ConfigurationError: Answer(500, "UNKNOWN"),
}

DEFAULT_RETRY_AFTER = 5
"""Seconds, for answers that may be retried when nobody said when."""


@dataclass(frozen=True, slots=True)
class RenderedError:
    """A status, headers and a JSON body, ready to be sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def answer_to(error: ReplicatorError) -> Answer:
    """Return the answer of the error's nearest listed class."""
    return next(ANSWERS[kind] for kind in type(error).__mro__ if kind in ANSWERS)


def render(error: ReplicatorError) -> RenderedError:
    """Turn an error into what is sent."""
    answer = answer_to(error)
    return RenderedError(answer.status, _headers(error, answer), _body(error, answer))


def render_unexpected() -> RenderedError:
    """Turn a bug of ours into what is sent: nothing of it but the status."""
    answer = ANSWERS[ReplicatorError]
    return RenderedError(answer.status, {}, _document([{"code": answer.code, "message": "internal error"}]))


def _headers(error: ReplicatorError, answer: Answer) -> dict[str, str]:
    headers: dict[str, str] = {}
    if isinstance(error, errors.UploadOutOfOrder):
        headers["Range"] = session_range(error.offset)
        if error.location:
            headers["Location"] = error.location
    elif isinstance(error, errors.RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.size}"
    elif isinstance(error, errors.Unsupported) and error.allow:
        headers["Allow"] = ", ".join(error.allow)
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, -int(-error.retry_after // 1)))
    elif error.retryable and answer.status in {429, 503, 504}:
        headers["Retry-After"] = str(DEFAULT_RETRY_AFTER)
    return headers


def _body(error: ReplicatorError, answer: Answer) -> bytes:
    if isinstance(error, errors.MissingReferences) and error.digests:
        return _document(
            [
                {"code": answer.code, "message": message, "detail": {"digest": digest}}
                for digest, message in zip(error.digests[:100], _each(str(error)), strict=False)
            ]
        )
    if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return _document([{"code": answer.code, "message": "internal error"}])
    entry: dict[str, object] = {"code": answer.code, "message": str(error)}
    return _document([entry | _detail(error)])


def _each(message: str) -> Iterator[str]:
    """Yield a text that names all digests, then one that names none: so that the answer stays small."""
    yield message
    yield from repeat("this is required and does not exist, too")


def _detail(error: ReplicatorError) -> dict[str, object]:
    """Return what a peer needs to know to say why it could not replicate."""
    if isinstance(error, errors.ReplicationDenied):
        return {"detail": {"permission": error.permission}}
    if isinstance(error, errors.ClockSkew):
        return {"detail": {"reason": CLOCK_SKEW}}
    return {}


def _document(entries: list[dict[str, object]]) -> bytes:
    return json.dumps({"errors": entries}, separators=(",", ":")).encode()
