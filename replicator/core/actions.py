"""What may be asked of a registry: ECR's actions, and the node's own."""

from __future__ import annotations

import enum


class Action(enum.StrEnum):
    """What the registry, the node's own pages and its engines ask for; the JSON API asks `ecr:` and its operation."""

    BATCH_CHECK_LAYER_AVAILABILITY = "ecr:BatchCheckLayerAvailability"
    BATCH_DELETE_IMAGE = "ecr:BatchDeleteImage"
    BATCH_GET_IMAGE = "ecr:BatchGetImage"
    BATCH_IMPORT_UPSTREAM_IMAGE = "ecr:BatchImportUpstreamImage"
    COMPLETE_LAYER_UPLOAD = "ecr:CompleteLayerUpload"
    CREATE_REPOSITORY = "ecr:CreateRepository"
    DESCRIBE_IMAGE_REPLICATION_STATUS = "ecr:DescribeImageReplicationStatus"
    DESCRIBE_IMAGE_SCAN_FINDINGS = "ecr:DescribeImageScanFindings"
    DESCRIBE_IMAGES = "ecr:DescribeImages"
    DESCRIBE_REPOSITORIES = "ecr:DescribeRepositories"
    GET_DOWNLOAD_URL_FOR_LAYER = "ecr:GetDownloadUrlForLayer"
    INITIATE_LAYER_UPLOAD = "ecr:InitiateLayerUpload"
    LIST_IMAGE_REFERRERS = "ecr:ListImageReferrers"
    LIST_IMAGES = "ecr:ListImages"
    PUT_IMAGE = "ecr:PutImage"
    REPLICATE_IMAGE = "ecr:ReplicateImage"
    UPLOAD_LAYER_PART = "ecr:UploadLayerPart"

    COMPARE_REGISTRIES = "replicator:CompareRegistries"
    DESCRIBE_CACHE = "replicator:DescribeCache"
    DESCRIBE_EVENTS = "replicator:DescribeEvents"
    DESCRIBE_STATUS = "replicator:DescribeStatus"
    EXPLAIN_POLICY = "replicator:ExplainPolicy"
    FILL_CACHE = "replicator:FillCache"
    MANAGE_EVENTS = "replicator:ManageEvents"
    PIN_IMAGE = "replicator:PinImage"
    PURGE_CACHE = "replicator:PurgeCache"
    REPLICATE_AGAIN = "replicator:ReplicateAgain"
    START_BACKFILL = "replicator:StartBackfill"
    SYNC_REGISTRIES = "replicator:SyncRegistries"
