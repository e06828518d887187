"""Operations on authorization tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Handler

HANDLERS: Mapping[str, Handler] = {}
