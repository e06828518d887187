"""What errors say, in the words of Amazon ECR: tools that people use with it look for them (ECR §5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


AUTHORIZATION_EXPIRED = "Your authorization token has expired. Reauthenticate and try again."

NO_IMAGE_ID = "Invalid request parameters: both tag and digest cannot be null"

POLICY_LOCKS_OUT = "The policy would prevent the caller from setting another one; it can be set with force"
"""Why a repository policy is refused."""

SCAN_QUOTA_EXCEEDED = "The scan quota per image has been exceeded. Wait and try again."
MANUAL_SCAN_DISABLED = "This feature is disabled"
"""What ECR says of a scan by hand where scanning is enhanced."""

REPLICATION_TO_ITSELF = "Replication destination cannot be the same as the source registry"
"""Why a replication configuration is refused."""


IMAGE_NOT_FOUND = "Requested image not found"
"""What a pull, and the failure in a batch, says of an image that is not here."""
NO_IMAGE_ID = "Invalid request parameters: both tag and digest cannot be null"
INVALID_IMAGE_DIGEST = (
    "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'"
)
INVALID_IMAGE_TAG = "Invalid request parameters: image tag should satisfy the regex '[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}'"
IMAGE_INACCESSIBLE = "Requested image is archived and cannot be pulled"
TAG_OF_OTHER_IMAGE = "Requested image tag does not match the image digest"
NO_MEDIA_TYPE = "image manifest mediatype not provided in manifest or parameter"


def repository_not_found(repository: str, registry: str) -> str:
    """Say that a registry, named by its account, has no such repository."""
    return f"The repository with name '{repository}' does not exist in the registry with id '{registry}'"


def below_alias(alias: str) -> str:
    """Say why a private repository cannot have a name."""
    return f"names below the alias of the public registry, {alias}, are those of public repositories"


def repository_exists(repository: str, registry: str) -> str:
    """Say that there is such a repository."""
    return f"The repository with name '{repository}' already exists in the registry with id '{registry}'"


def repository_not_empty(repository: str, registry: str) -> str:
    """Say that a repository cannot be deleted."""
    return (
        f"The repository with name '{repository}' in registry with id '{registry}' cannot be deleted because it still"
        " contains images"
    )


INVALID_RESOURCE_TAG = "Tag parameters are invalid"
EMPTY_UPLOAD = "The specified layer upload does not contain any layer parts."
LAYER_PART_TOO_SMALL = "All layer parts except the last part should be at least 5MB"
LAYER_EXISTS = "The image layer already exists in the associated repository."
INVALID_LAYER_DIGEST = (
    "Invalid request parameters: layer digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'"
)
NO_LAYER_DIGEST = "Invalid request parameters: layer digest cannot be null"
LAYER_NOT_FOUND = "The specified layers could not be found, or the specified layer is not valid for this repository."
LAYER_INACCESSIBLE = (
    "The specified layer is not available because it is not associated with an image. Unassociated image layers may be"
    " cleaned up at any time."
)


def too_many_resource_tags(limit: int) -> str:
    """Say that a repository would have too many tags on it as a resource."""
    return (
        "The list of tags on the repository is over the limit. The maximum number of tags that can be applied to a"
        f" repository is {limit}."
    )


def repositories_exceeded(registry: str, limit: int) -> str:
    """Say that a registry takes no more repositories."""
    return (
        f"The registry with id '{registry}' already has the maximum allowed number of repositories which is '{limit}'"
    )


def images_exceeded(repository: str, registry: str, limit: int) -> str:
    """Say that a repository takes no more images."""
    return f"The {_named(repository, registry)} already has the maximum allowed number of images which is '{limit}'"


def image_tags_exceeded(digest: str, repository: str, registry: str, limit: int) -> str:
    """Say that an image takes no more tags."""
    return (
        f"The image with digest '{digest}' in the {_named(repository, registry)} already has the maximum allowed"
        f" number of tags which is '{limit}'"
    )


def batch_too_large(limit: int) -> str:
    """Say that no answer holds all the images."""
    return f"The manifests of the requested images are larger than {limit} bytes together. Request fewer images."


def layer_parts_exceeded(upload: str, limit: int) -> str:
    """Say that an upload takes no more parts."""
    return f"The upload with id '{upload}' already has the maximum allowed number of layer parts which is '{limit}'"


def template_lacks_role(prefix: str, repository: str) -> str:
    """Say that a template cannot be applied."""
    return (
        f"The repository with name '{repository}' cannot be created: the repository creation template with prefix"
        f" '{prefix}' sets resource tags or KMS encryption, which requires a customRoleArn"
    )


def layer_size_exceeded(upload: str, limit: int) -> str:
    """Say that an upload takes no more bytes."""
    return f"The upload with id '{upload}' already has the maximum allowed layer size which is '{limit}' bytes"


def upstream_image_failed(why: str) -> str:
    """Say that an image could not be had from an upstream."""
    return f"There was an issue getting the upstream image matching the upstream registry: {why}"


def upstream_layer_failed(why: str) -> str:
    """Say that a layer could not be had from an upstream."""
    return f"There was an issue getting the upstream layer matching the upstream registry: {why}"


def upstream_referrers_failed(why: str) -> str:
    """Say that an upstream could not list the referrers of an image."""
    return f"The referrer or referrers were unable to be pulled from the upstream registry: {why}"


def upload_not_found(upload: str, repository: str, registry: str) -> str:
    """Say that a repository has no such upload, or none of this caller."""
    return f"The upload with id '{upload}' does not exist in the {_named(repository, registry)}"


def layer_mismatch(found: str, stated: Iterable[str]) -> str:
    """Say that a layer does not have the digest that was stated."""
    return (
        "The layer digest calculation performed by Amazon ECR upon receipt of the image layer does not match the digest"
        f" specified: expected '[{', '.join(stated)}]', got '{found}'"
    )


def layer_part_order(expected: int, got: int) -> str:
    """Say that a part does not go on where the one before it ended."""
    return f"The first byte of the layer part must be {expected}, which follows the last byte received, not {got}"


def layer_part_length(stated: int, got: int, limit: int) -> str:
    """Say that a part is not as long as its first and last byte say, or too long."""
    return f"The layer part must have the {stated} bytes from its first to its last byte, at most {limit}, not {got}"


def image_not_found(digest: str | None, tag: str | None, repository: str, registry: str) -> str:
    """Say that a repository has no such image."""
    return (
        f"The image with imageId {image_id(digest, tag)} does not exist within the repository with name"
        f" '{repository}' in the registry with id '{registry}'"
    )


def image_id(digest: str | None, tag: str | None) -> str:
    """Write an image's id as ECR does."""
    return f"{{imageDigest:'{digest or 'null'}', imageTag:'{tag or 'null'}'}}"


def image_exists(digest: str, tag: str | None, repository: str, registry: str) -> str:
    """Say that an image has been pushed before under this tag."""
    return (
        f"Image with digest '{digest}' and tag '{tag or 'null'}' already exists in the repository with name"
        f" '{repository}' in registry with id '{registry}'"
    )


def tag_immutable(tag: str, repository: str) -> str:
    """Say that a tag cannot move."""
    return (
        f"The image tag '{tag}' already exists in the '{repository}' repository and cannot be overwritten because the"
        " tag is immutable."
    )


def pull_time_exclusion_exists(principal: str) -> str:
    """Say that a principal's pulls are not recorded already."""
    return f"The pull time update exclusion for principal '{principal}' already exists"


def no_pull_time_exclusion(principal: str) -> str:
    """Say that a principal's pulls are recorded."""
    return f"The pull time update exclusion for principal '{principal}' does not exist"


def pull_time_exclusions_exceeded(limit: int) -> str:
    """Say that a registry takes no more exclusions."""
    return f"The registry already has the maximum allowed number of pull time update exclusions which is '{limit}'"


def storage_class_refused(digest: str, repository: str, registry: str, why: str) -> str:
    """Say that an image cannot be moved to a storage class now."""
    return (
        f"The storage class of the image with digest '{digest}' in the {_named(repository, registry)} cannot be updated"
        f" because {why}"
    )


def tag_protected(tag: str, repository: str) -> str:
    """Say that a tag cannot be deleted."""
    return (
        f"The image tag '{tag}' in the '{repository}' repository cannot be deleted because the tag is immutable and"
        " this registry protects immutable tags."
    )


def image_referenced(parents: Iterable[str]) -> str:
    """Say that indexes list an image, which therefore cannot be deleted."""
    return f"Requested image referenced by manifest list: [{', '.join(parents)}]"


def images_required(digests: Iterable[str], repository: str, registry: str) -> str:
    """Say that an index names images which the repository does not hold."""
    return _required("Images", digests, repository, registry)


def layers_required(digests: Iterable[str], repository: str, registry: str) -> str:
    """Say that an image names layers which the repository does not hold."""
    return _required("Layers", digests, repository, registry)


def _required(what: str, digests: Iterable[str], repository: str, registry: str) -> str:
    return (
        f"{what} with digests '[{', '.join(digests)}]' required for pushing image into repository with name"
        f" '{repository}' in the registry with id '{registry}' do not exist"
    )


def no_repository_policy(repository: str, registry: str) -> str:
    """Say that a repository has no policy."""
    return f"Repository policy does not exist for the {_named(repository, registry)}"


def no_catalog_data(repository: str, registry: str) -> str:
    """Say that nobody has described a public repository."""
    return f"Repository catalog data does not exist for the {_named(repository, registry)}"


def public_registry_not_found(registry: str) -> str:
    """Say that neither an account nor an alias leads to a public registry."""
    return f"The registry with id '{registry}' does not exist"


def no_registry_policy(registry: str) -> str:
    """Say that a registry has no policy."""
    return f"Registry policy does not exist in the registry with id '{registry}'"


def template_exists(prefix: str, registry: str) -> str:
    """Say that there is such a repository creation template."""
    return f"The template with prefix '{prefix}' already exists in the registry with id '{registry}'"


def template_not_found(prefix: str, registry: str) -> str:
    """Say that there is no such repository creation template."""
    return f"The template with prefix '{prefix}' does not exist in the registry with id '{registry}'"


def cache_rule_exists(prefix: str, registry: str) -> str:
    """Say that there is a pull-through cache rule of this prefix."""
    return f"The pull through cache rule with prefix '{prefix}' already exists in the registry with id '{registry}'"


def cache_rule_not_found(prefix: str, registry: str) -> str:
    """Say that there is no pull-through cache rule of this prefix."""
    return f"The pull through cache rule with prefix '{prefix}' does not exist in the registry with id '{registry}'"


def templates_exceeded(limit: int) -> str:
    """Say that a registry takes no more repository creation templates."""
    return f"The registry already has the maximum allowed number of repository creation templates which is '{limit}'"


def cache_rules_exceeded(limit: int) -> str:
    """Say that a registry takes no more pull-through cache rules."""
    return f"The registry already has the maximum allowed number of pull through cache rules which is '{limit}'"


def unsupported_upstream(url: str) -> str:
    """Say that a pull-through cache rule cannot lead to a registry."""
    return f"The upstream registry '{url[:200]}' is not supported for pull through cache"


def upstream_needs_credentials(url: str) -> str:
    """Say that a pull-through cache rule needs credentials."""
    return f"The upstream registry '{url[:200]}' requires authentication: the rule needs a credentialArn"


def secret_not_found(arn: str) -> str:
    """Say that there is no such secret."""
    return f"The secret with ARN '{arn}' does not exist"


def no_signing_configuration(registry: str) -> str:
    """Say that a registry has no signing configuration."""
    return f"Signing configuration does not exist in the registry with id '{registry}'"


def no_lifecycle_policy(repository: str, registry: str) -> str:
    """Say that a repository has no lifecycle policy."""
    return f"Lifecycle policy does not exist for the {_named(repository, registry)}"


def no_lifecycle_preview(repository: str, registry: str) -> str:
    """Say that no preview of a repository was started."""
    return f"Lifecycle policy preview does not exist for the {_named(repository, registry)}"


def lifecycle_preview_in_progress(repository: str, registry: str) -> str:
    """Say that a repository's former preview has not ended."""
    return f"Lifecycle policy preview is in progress for the {_named(repository, registry)}"


def image_archived(digest: str, repository: str) -> str:
    """Say that an image is archived, and must be restored first."""
    return f"The image with digest '{digest}' in the repository with name '{repository}' is archived"


def image_type_unsupported(media_type: str) -> str:
    """Say that images of a kind cannot be scanned."""
    return f"The image with media type '{media_type}' cannot be scanned: only container images can, not indexes"


def no_scan(digest: str | None, tag: str | None, repository: str, registry: str) -> str:
    """Say that an image was never scanned."""
    return (
        f"Image scan does not exist for the image with '{image_id(digest, tag)}' in the {_named(repository, registry)}"
    )


def _named(repository: str, registry: str) -> str:
    return f"repository with name '{repository}' in the registry with id '{registry}'"


def constraint(field: str, text: str) -> str:
    """Say what a member of a request must be."""
    return f"Invalid parameter at '{field}' failed to satisfy constraint: '{text}'"


def invalid_policy(field: str, kind: str) -> str:
    """Say that a document is no policy; `kind` is `repository policy`, `registry policy`."""
    return constraint(field, f"Invalid {kind} provided")


def access_denied(caller: str, action: str, resource: str, why: str) -> str:
    """Say that a caller, named by its ARN, lacks a permission; `why` is one of the texts below."""
    return f"User: {caller} is not authorized to perform: {action} on resource: {resource} {why}"


def nothing_allows(kind: str, action: str) -> str:
    """Say that nothing gives a permission; `kind` is `identity-based` or `resource-based`."""
    return f"because no {kind} policy allows the {action} action"


def explicit_deny(kind: str) -> str:
    """Say that a statement takes a permission away; `kind` is `identity-based` or `resource-based`."""
    article = "an" if kind.startswith("i") else "a"
    return f"with an explicit deny in {article} {kind} policy"


def registry_not_found(registry: str, region: str) -> str:
    """Say that an account has no registry that is served here."""
    return f"The registry with id '{registry}' does not exist in region {region}"


RATE_EXCEEDED = "Rate exceeded"
"""Said to a caller that asks too often."""
