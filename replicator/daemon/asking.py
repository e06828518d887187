"""What every command is told that asks the nodes of a configuration: which, as whom, and how to show the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Asking:
    """Which nodes a command speaks to, and how. `source` is the one to ask; None where that is found by itself."""

    config: Path
    environ: Mapping[str, str]
    user: str | None = None
    ca_file: Path | None = None
    source: str | None = None
    as_json: bool = False
