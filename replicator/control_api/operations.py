"""The operations of ECR and ECR Public, each with the function that answers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.control_api import (
    account_settings,
    authorization_tokens,
    cache_rules,
    images,
    layers,
    lifecycle,
    policies,
    public_catalog,
    public_images,
    public_registries,
    public_repositories,
    pull_time_exclusions,
    referrers,
    registry_settings,
    replication,
    repositories,
    resource_tags,
    scanning,
    signing,
    storage_class,
    templates,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Handler

ECR: Mapping[str, Handler] = {
    **repositories.HANDLERS,
    **resource_tags.HANDLERS,
    **images.HANDLERS,
    **layers.HANDLERS,
    **referrers.HANDLERS,
    **storage_class.HANDLERS,
    **pull_time_exclusions.HANDLERS,
    **policies.HANDLERS,
    **registry_settings.HANDLERS,
    **account_settings.HANDLERS,
    **replication.HANDLERS,
    **cache_rules.HANDLERS,
    **templates.HANDLERS,
    **lifecycle.HANDLERS,
    **scanning.HANDLERS,
    **signing.HANDLERS,
    **authorization_tokens.HANDLERS,
}
"""What answers each operation of ECR; one without an entry is in the model, and not supported."""

_SHARED = (
    "BatchCheckLayerAvailability",
    "BatchDeleteImage",
    "CompleteLayerUpload",
    "DeleteRepository",
    "DeleteRepositoryPolicy",
    "DescribeImages",
    "DescribeRepositories",
    "GetRepositoryPolicy",
    "InitiateLayerUpload",
    "ListTagsForResource",
    "PutImage",
    "SetRepositoryPolicy",
    "TagResource",
    "UntagResource",
    "UploadLayerPart",
)
"""Operations of both services; each has one handler, and the names that a call brings make the difference."""

ECR_PUBLIC: Mapping[str, Handler] = {
    **{name: ECR[name] for name in _SHARED},
    **public_repositories.HANDLERS,
    **public_images.HANDLERS,
    **public_catalog.HANDLERS,
    **public_registries.HANDLERS,
    **authorization_tokens.PUBLIC_HANDLERS,
}
"""What answers each operation of ECR Public."""

HANDLERS: Mapping[str, Mapping[str, Handler]] = {"ecr": ECR, "ecr-public": ECR_PUBLIC}
"""The operations by service."""
