"""What errors say, in the words of Amazon ECR: tools that people use with it look for them (ECR §5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


AUTHORIZATION_EXPIRED = "Your authorization token has expired. Reauthenticate and try again."


def repository_not_found(repository: str, registry: str) -> str:
    """Say that a registry, named by its account, has no such repository."""
    return f"The repository with name '{repository}' does not exist in the registry with id '{registry}'"


def repository_exists(repository: str, registry: str) -> str:
    """Say that there is such a repository."""
    return f"The repository with name '{repository}' already exists in the registry with id '{registry}'"


def repository_not_empty(repository: str, registry: str) -> str:
    """Say that a repository cannot be deleted."""
    return (
        f"The repository with name '{repository}' in registry with id '{registry}' cannot be deleted because it still"
        " contains images"
    )


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


def no_registry_policy(registry: str) -> str:
    """Say that a registry has no policy."""
    return f"Registry policy does not exist in the registry with id '{registry}'"


def no_lifecycle_policy(repository: str, registry: str) -> str:
    """Say that a repository has no lifecycle policy."""
    return f"Lifecycle policy does not exist for the {_named(repository, registry)}"


def no_lifecycle_preview(repository: str, registry: str) -> str:
    """Say that no preview of a repository was started."""
    return f"Lifecycle policy preview does not exist for the {_named(repository, registry)}"


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
