"""How much of everything a registry takes: ECR's service quotas (ECR §17)."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Quotas:
    """Counts, and sizes in bytes. Reaching one is fine, exceeding it is refused and changes nothing."""

    repositories: int = 100_000
    images_per_repository: int = 100_000
    tags_per_image: int = 1_000
    resource_tags: int = 50
    layer_parts: int = 4_200
    layer_part_size: int = 20 * MIB
    min_layer_part_size: int = 5 * MIB
    layer_size: int = 52_000 * MIB
    lifecycle_rules: int = 50
    replication_rules: int = 10
    replication_destinations: int = 25
    replication_filters: int = 100
    cache_rules: int = 50
    creation_templates: int = 50
    signing_rules: int = 10
    signing_filters: int = 100
    pull_time_exclusions: int = 100
    backfills: int = 10
    image_scans_per_day: int = 1
    scans_per_day: int = 100_000
    public_repositories: int = 10_000
    public_layer_parts: int = 1_000
    public_layer_size: int = 10_000 * MIB

    def layer_limits(self, *, is_public: bool) -> tuple[int, int]:
        """Return how many parts, and how many bytes, a layer of a private or public repository has at most."""
        if is_public:
            return self.public_layer_parts, self.public_layer_size
        return self.layer_parts, self.layer_size


DEFAULT_QUOTAS = Quotas()
"""Those of Amazon ECR."""
