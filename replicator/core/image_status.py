"""Where an image is in its life between storage classes: pulled from, archived, or on its way back (ECR §13.1)."""

from __future__ import annotations

import enum


class ImageStatus(enum.StrEnum):
    """ECR's states of an image; only an ACTIVE one can be pulled."""

    ACTIVE = "ACTIVE"
    ARCHIVED = "ARCHIVED"
    ACTIVATING = "ACTIVATING"


class StorageClass(enum.StrEnum):
    """What an image can be moved to."""

    STANDARD = "STANDARD"
    ARCHIVE = "ARCHIVE"


class TagStatus(enum.StrEnum):
    """Which images a listing shows."""

    ANY = "ANY"
    TAGGED = "TAGGED"
    UNTAGGED = "UNTAGGED"
