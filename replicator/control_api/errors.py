"""What the API answers when it cannot do what was asked: the model's error codes, with ECR's texts.

`EcrError` is raised where only the API knows the error (a malformed request, a member out of range). Everything else
is an error of the core, which `CODES` turns into a code along the class hierarchy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core import errors, texts
from replicator.core.errors import ReplicatorError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.model import Operation

CODES: Mapping[type[ReplicatorError], str] = {
    ReplicatorError: "ServerException",
    errors.InvalidInput: "InvalidParameterException",
    errors.NotFound: "InvalidParameterException",
    errors.Unsupported: "InvalidParameterException",
    errors.LayerMismatch: "InvalidLayerException",
    errors.EmptyUpload: "EmptyUploadException",
    errors.LayerPartTooSmall: "LayerPartTooSmallException",
    errors.UploadOutOfOrder: "InvalidLayerPartException",
    errors.BlobTooLarge: "LimitExceededException",
    errors.ManifestTooLarge: "LimitExceededException",
    errors.InvalidResourceTag: "InvalidTagParameterException",
    errors.TooManyResourceTags: "TooManyTagsException",
    errors.BlobNotFound: "LayersNotFoundException",
    errors.LayerNotFound: "LayersNotFoundException",
    errors.LayerInaccessible: "LayerInaccessibleException",
    errors.RepositoryExists: "RepositoryAlreadyExistsException",
    errors.RepositoryNotEmpty: "RepositoryNotEmptyException",
    errors.LayerExists: "LayerAlreadyExistsException",
    errors.LimitExceeded: "LimitExceededException",
    errors.RepositoryNotFound: "RepositoryNotFoundException",
    errors.ManifestNotFound: "ImageNotFoundException",
    errors.UploadNotFound: "UploadNotFoundException",
    errors.BackfillNotFound: "ReplicationBackfillNotFoundException",
    errors.RegistryPolicyNotFound: "RegistryPolicyNotFoundException",
    errors.RepositoryPolicyNotFound: "RepositoryPolicyNotFoundException",
    errors.CatalogDataNotFound: "RepositoryCatalogDataNotFoundException",
    errors.SigningConfigurationNotFound: "SigningConfigurationNotFoundException",
    errors.CacheRuleNotFound: "PullThroughCacheRuleNotFoundException",
    errors.CacheRuleExists: "PullThroughCacheRuleAlreadyExistsException",
    errors.CacheRuleLimit: "LimitExceededException",
    errors.UnsupportedUpstream: "UnsupportedUpstreamRegistryException",
    errors.SecretNotFound: "SecretNotFoundException",
    errors.SecretInaccessible: "UnableToAccessSecretException",
    errors.SecretUndecipherable: "UnableToDecryptSecretValueException",
    errors.TemplateNotFound: "TemplateNotFoundException",
    errors.TemplateExists: "TemplateAlreadyExistsException",
    errors.PullTimeExclusionNotFound: "ExclusionNotFoundException",
    errors.CredentialsUnavailable: "UnableToGetUpstreamImageException",
    errors.ImageExists: "ImageAlreadyExistsException",
    errors.ImageReferenced: "InvalidParameterException",
    errors.StorageClassRefused: "ImageStorageClassUpdateNotSupportedException",
    errors.PullTimeExclusionExists: "ExclusionAlreadyExistsException",
    errors.MissingReferences: "ReferencedImagesNotFoundException",
    errors.MissingImages: "ReferencedImagesNotFoundException",
    errors.MissingLayers: "LayersNotFoundException",
    errors.TagImmutable: "ImageTagAlreadyExistsException",
    errors.BackfillInProgress: "ReplicationBackfillInProgressException",
    errors.BackfillLimit: "LimitExceededException",
    errors.BackfillInvalidStatus: "ReplicationBackfillInvalidStatusException",
    errors.DeclaredInFile: "InvalidParameterException",
    errors.UnsupportedImageType: "UnsupportedImageTypeException",
    errors.ScanningMismatch: "ValidationException",
    errors.LifecyclePolicyNotFound: "LifecyclePolicyNotFoundException",
    errors.LifecyclePreviewNotFound: "LifecyclePolicyPreviewNotFoundException",
    errors.LifecyclePreviewInProgress: "LifecyclePolicyPreviewInProgressException",
    errors.ScanNotFound: "ScanNotFoundException",
    errors.ScanLimit: "LimitExceededException",
    errors.ImageArchived: "ImageArchivedException",
    errors.DigestMismatch: "ImageDigestDoesNotMatchException",
    errors.AccessError: "AccessDeniedException",
    errors.Throttled: "ThrottlingException",
}


_NOT_SUPPORTED = ("UnsupportedCommandException", "ValidationException")
_INVALID = ("InvalidParameterException", "ValidationException")

COMMON = frozenset(
    {
        "AccessDeniedException",
        "IncompleteSignatureException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "RequestEntityTooLargeException",
        "RequestTimeoutException",
        "SerializationException",
        "ThrottlingException",
        "UnknownOperationException",
        "UnrecognizedClientException",
    }
)
"""Errors that all AWS services share; they are in no model."""


class EcrError(Exception):
    """An answer of the API: a code of the model, or one that all AWS services share, a text, and further members."""

    def __init__(
        self, code: str, message: str, *, status: int = 400, members: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.members = members or {}


def invalid_parameter(field: str, constraint: str) -> EcrError:
    """Return ECR's answer to a member that is not as it must be (ECR §5.2); `field` is its path in the request."""
    return EcrError("InvalidParameterException", texts.constraint(field, constraint))


def code_of(error: ReplicatorError) -> str:
    """Return the code of the error's nearest listed class."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def answer_to(error: ReplicatorError) -> EcrError:
    """Return what is answered to an error of the core; one of our own making carries no text of ours."""
    code = code_of(error)
    if code == "ServerException":
        return server_exception()
    return EcrError(code, texts.RATE_EXCEEDED if code == "ThrottlingException" else str(error))


def server_exception() -> EcrError:
    """Return the answer to a fault that is not the caller's."""
    return EcrError("ServerException", "The server could not process the request.", status=500)


def of_operation(error: EcrError, operation: Operation) -> EcrError:
    """Return an error that the operation has: what its model does not know is an invalid request with the same text."""
    if error.code in operation.errors or error.code in COMMON:
        return error
    code = next((one for one in _INVALID if one in operation.errors), "ServerException")
    return EcrError(code, str(error), status=error.status)


def not_supported(operation: Operation) -> EcrError:
    """Return the answer to an operation of the model that this registry does not have."""
    code = next((one for one in _NOT_SUPPORTED if one in operation.errors), "InvalidParameterException")
    return EcrError(code, f"The operation {operation.name} is not supported by this registry.")
