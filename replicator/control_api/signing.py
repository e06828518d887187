"""The signing configuration of a registry, and what became of the signing of an image (ECR §13.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Handler

HANDLERS: Mapping[str, Handler] = {}
