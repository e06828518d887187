"""Every failure the product knows, named by what the caller can do about it.

There is no HTTP here: each edge maps these classes to its protocol in one table, looked up along the class
hierarchy, and a test walks the leaves. The docstring of a class is its default message.
"""

from __future__ import annotations

from typing import ClassVar


class ReplicatorError(Exception):
    """something went wrong."""

    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().rstrip("."))
        self.retry_after = retry_after
        """Seconds the caller should wait before a retry, where somebody said so."""


class InvalidInput(ReplicatorError):
    """the request is malformed."""


class InvalidDigest(InvalidInput):
    """the digest is malformed or uses an unsupported algorithm."""


class InvalidName(InvalidInput):
    """the repository name is malformed."""


class InvalidTag(InvalidInput):
    """the tag is malformed."""


class InvalidReference(InvalidInput):
    """the reference is neither a tag nor a digest."""


class InvalidManifest(InvalidInput):
    """the manifest is malformed."""


class ManifestSyntax(InvalidManifest):
    """the manifest is no JSON object."""


class UnsupportedManifest(InvalidManifest):
    """the manifest's media type is not supported."""


class ManifestTooLarge(InvalidInput):
    """the manifest is larger than this registry accepts."""


class InvalidPagination(InvalidInput):
    """the page size or position is malformed."""


class InvalidPolicy(InvalidInput):
    """the policy is malformed."""

    def __init__(self, message: str | None = None, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        """What is wrong with it; ECR does not tell its callers."""


class UnsupportedEncoding(InvalidInput):
    """the body is compressed; expected an identity Content-Encoding."""


class InvalidUpload(InvalidInput):
    """the upload request is malformed."""


class BlobTooLarge(InvalidUpload):
    """the blob is larger than this registry accepts."""


class EmptyUpload(InvalidUpload):
    """the upload holds no bytes."""


class LayerPartTooSmall(InvalidUpload):
    """a part that is not the last one is too small."""


class InvalidResourceTag(InvalidInput):
    """a tag of a resource is malformed."""


class TooManyResourceTags(InvalidInput):
    """the resource would have too many tags."""


class SizeMismatch(InvalidInput):
    """the content does not have the stated size."""


class DigestMismatch(InvalidInput):
    """the content does not have the stated digest."""


class LayerMismatch(DigestMismatch):
    """the layer does not have the stated digest."""


class UploadOutOfOrder(InvalidInput):
    """the chunk does not start where the upload session stands."""

    def __init__(self, message: str | None = None, *, offset: int = 0, location: str = "") -> None:
        super().__init__(message)
        self.offset = offset
        """Bytes the session holds: the next chunk must start here."""
        self.location = location
        """Where the session goes on, as the edge writes it; set by the edge."""


class ClockSkew(InvalidInput):
    """the write was made too far in the future of this node's clock."""


class RangeNotSatisfiable(InvalidInput):
    """the requested range lies outside the content."""

    def __init__(self, message: str | None = None, *, size: int = 0) -> None:
        super().__init__(message)
        self.size = size


class InvalidLifecyclePolicy(InvalidInput):
    """the lifecycle policy is malformed."""


class UnsupportedImageType(InvalidInput):
    """images of this kind cannot be scanned."""


class ScanningMismatch(InvalidInput):
    """the registry's scan type does not allow this."""


class NotFound(ReplicatorError):
    """there is no such thing."""


class RepositoryNotFound(NotFound):
    """the repository does not exist."""


class ManifestNotFound(NotFound):
    """the manifest does not exist in this repository."""


class ImageInaccessible(ManifestNotFound):
    """the image is archived, and cannot be pulled."""


class BlobNotFound(NotFound):
    """the blob does not exist in this repository."""


class BlobArchived(BlobNotFound):
    """only archived images of this repository have the blob."""


class LayerNotFound(NotFound):
    """the layer does not exist in this repository."""


class LayerInaccessible(NotFound):
    """the layer belongs to no image that can be pulled."""


class UploadNotFound(NotFound):
    """the upload session does not exist or has expired."""


class PageNotFound(NotFound):
    """there is nothing at this path."""


class BackfillNotFound(NotFound):
    """the backfill does not exist."""


class EventNotFound(NotFound):
    """the event is not kept, or never was."""


class SinkNotFound(NotFound):
    """there is no event sink of this name."""


class RegistryPolicyNotFound(NotFound):
    """the registry has no policy."""


class SigningConfigurationNotFound(NotFound):
    """the registry has no signing configuration."""


class CatalogDataNotFound(NotFound):
    """the public repository has no catalog data."""


class RepositoryPolicyNotFound(NotFound):
    """the repository has no policy."""


class CacheRuleNotFound(NotFound):
    """the pull-through cache rule does not exist."""


class SecretNotFound(NotFound):
    """the secret that holds the credentials does not exist."""


class TemplateNotFound(NotFound):
    """the repository creation template does not exist."""


class LifecyclePolicyNotFound(NotFound):
    """the repository has no lifecycle policy."""


class LifecyclePreviewNotFound(NotFound):
    """no lifecycle policy preview of the repository was started."""


class ScanNotFound(NotFound):
    """the image was never scanned."""


class PullTimeExclusionNotFound(NotFound):
    """the pulls of this principal are recorded."""


class Conflict(ReplicatorError):
    """the request conflicts with what is stored."""


class RepositoryExists(Conflict):
    """the repository exists."""


class RepositoryNotEmpty(Conflict):
    """the repository still contains images."""


class LayerExists(Conflict):
    """the layer exists in this repository."""


class LimitExceeded(Conflict):
    """the registry has as many of these as it may have."""


class ImageExists(Conflict):
    """the image was pushed before under this tag."""


class ImageReferenced(Conflict):
    """an index lists the image."""


class StorageClassRefused(Conflict):
    """the image cannot be moved to this storage class now."""


class PullTimeExclusionExists(Conflict):
    """the pulls of this principal are not recorded already."""


class TagImmutable(Conflict):
    """the tag exists and must not move."""


class DeclaredInFile(Conflict):
    """the configuration file declares this, and only there it can be changed."""


class CacheRuleExists(Conflict):
    """a pull-through cache rule has this prefix."""


class CacheRuleLimit(Conflict):
    """the registry has as many pull-through cache rules as it may have."""


class UnsupportedUpstream(InvalidInput):
    """the registry is none that a pull-through cache rule can name so."""


class SecretInaccessible(ReplicatorError):
    """the secret that holds the credentials cannot be read."""


class SecretUndecipherable(ReplicatorError):
    """the secret does not hold credentials."""


class TemplateExists(Conflict):
    """a repository creation template has this prefix."""


class BackfillInProgress(Conflict):
    """a backfill to this destination is in progress."""


class BackfillLimit(Conflict):
    """too many backfills are in progress."""


class BackfillInvalidStatus(Conflict):
    """the backfill's status does not allow this."""


class LifecyclePreviewInProgress(Conflict):
    """a lifecycle policy preview of the repository is in progress."""


class ImageArchived(Conflict):
    """the image is archived."""


class ScanLimit(Conflict):
    """the image was scanned a short while ago."""


class MissingReferences(Conflict):
    """the manifest refers to content that this repository does not hold."""

    def __init__(self, message: str | None = None, *, digests: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.digests = digests


class MissingImages(MissingReferences):
    """the index refers to images that this repository does not hold."""


class MissingLayers(MissingReferences):
    """the image refers to layers that this repository does not hold."""


class AccessError(ReplicatorError):
    """access is not granted."""


class Unauthenticated(AccessError):
    """authentication is required."""


class AuthorizationExpired(AccessError):
    """the authorization token has expired."""


class Denied(AccessError):
    """the caller may not do this."""


class ReplicationDenied(Denied):
    """the registry policy does not allow this account to replicate here."""

    def __init__(self, message: str | None = None, *, permission: str = "") -> None:
        super().__init__(message)
        self.permission = permission
        """The ECR action that the destination's registry policy must allow, such as `ecr:ReplicateImage`."""


class Throttled(ReplicatorError):
    """too many requests."""

    retryable = True


class Unsupported(ReplicatorError):
    """the operation is not supported."""

    def __init__(self, message: str | None = None, *, allow: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.allow = allow
        """The methods that would be accepted."""


class LoopDetected(ReplicatorError):
    """the request has come back to where it was before."""


class CorruptBlob(ReplicatorError):
    """stored content is damaged."""


class UpstreamError(ReplicatorError):
    """the upstream registry could not be used."""


class UpstreamNotFound(UpstreamError):
    """the upstream does not have it."""


class UpstreamDenied(UpstreamError):
    """the upstream refuses our credentials."""


class CredentialsUnavailable(UpstreamDenied):
    """the credentials for the upstream could not be had."""


class PermissionMissing(UpstreamDenied):
    """the peer's registry policy does not allow our account to replicate there."""

    def __init__(self, message: str | None = None, *, permission: str = "") -> None:
        super().__init__(message)
        self.permission = permission
        """The ECR action that the peer's registry policy must allow."""


class UpstreamThrottled(UpstreamError):
    """the upstream asks us to slow down."""

    retryable = True


class UpstreamUnavailable(UpstreamError):
    """the upstream cannot be reached or is failing."""

    retryable = True


class UpstreamTimeout(UpstreamUnavailable):
    """the upstream did not answer in time."""


class UpstreamContent(UpstreamError):
    """the upstream's answer is not what was asked for."""

    retryable = True


class UpstreamRefused(UpstreamError):
    """the upstream refuses the content or operation."""


class UpstreamClockSkew(UpstreamRefused):
    """the peer says that our clock runs too far ahead."""


class StorageError(ReplicatorError):
    """the store cannot do it now."""

    retryable = True


class StorageFull(StorageError):
    """the store is full."""


class StorageUnavailable(StorageError):
    """the store cannot be reached."""


class StorageInUse(StorageError):
    """the store is opened by another process."""

    retryable = False


class StorageVersion(StorageError):
    """the store was written by a newer version of this program."""

    retryable = False


class ShuttingDown(ReplicatorError):
    """the daemon is shutting down."""

    retryable = True


class ConfigurationError(ReplicatorError):
    """the configuration is not usable."""
