"""How much of everything a registry takes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from replicator.config.base import Model
from replicator.config.units import Size
from replicator.core.quotas import MIB, Quotas

Quota = Annotated[int, Field(ge=0, le=2**31 - 1)]


class QuotaSettings(Model):
    """Service quotas of the registry; the defaults are Amazon ECR's."""

    repositories: Quota = 100_000
    """Most repositories of the registry."""
    images_per_repository: Quota = 100_000
    """Most images of a repository."""
    tags_per_image: Quota = 1_000
    """Most tags that point to one image."""
    resource_tags: Quota = 50
    """Most tags that a repository has as a resource."""
    layer_parts: Quota = 4_200
    """Most parts of a layer that is uploaded through the ECR API."""
    layer_part_size: Annotated[Size, Field(ge=1, le=20 * MIB)] = 20 * MIB
    """Largest part of such a layer, and the size that clients are told to send; at most 20MiB."""
    min_layer_part_size: Annotated[Size, Field(ge=1, le=20 * MIB)] = 5 * MIB
    """Smallest part of such a layer, but for the last one."""
    layer_size: Size = 52_000 * MIB
    """Largest layer that is uploaded through the ECR API."""
    lifecycle_rules: Quota = 50
    """Most rules of a lifecycle policy."""
    replication_rules: Quota = 10
    """Most replication rules that are set through the ECR API."""
    replication_destinations: Quota = 25
    """Most different destinations of those rules together."""
    replication_filters: Quota = 100
    """Most repository filters of one of those rules."""
    cache_rules: Quota = 50
    """Most pull-through cache rules that are set through the ECR API."""
    creation_templates: Quota = 50
    """Most repository creation templates that are set through the ECR API."""
    signing_rules: Quota = 10
    """Most rules of the signing configuration."""
    signing_filters: Quota = 100
    """Most repository filters of one of those rules."""
    pull_time_exclusions: Quota = 100
    """Most principals whose pulls leave the time of the last pull alone."""
    backfills: Quota = 10
    """Most backfills of replication that are under way at a time."""
    image_scans_per_day: Annotated[int, Field(ge=0, le=1)] = 1
    """Most basic scans of one image within 24 hours: 1, or 0 for none at all."""
    scans_per_day: Quota = 100_000
    """Most basic scans of the registry within 24 hours."""
    public_repositories: Quota = 10_000
    """Most public repositories of the registry."""
    public_layer_parts: Quota = 1_000
    """Most parts of a layer of a public repository."""
    public_layer_size: Size = 10_000 * MIB
    """Largest layer of a public repository."""

    def to_quotas(self) -> Quotas:
        """Return the core's value."""
        return Quotas(**self.model_dump())
