"""Files that hold secrets: nobody else may read them, and nobody ever sees half of one."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from replicator.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_FILE = 4 * 2**20


def read_object(path: Path) -> dict[str, object]:
    """Return the JSON object in a file, an empty one when there is no file; raises ConfigurationError."""
    try:
        with path.open("rb") as opened:
            data = opened.read(_MAX_FILE + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or 'input/output error'}") from error
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        found = None  # not chained below: the decoder's error carries the file
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path} does not hold a JSON object")
    return found


def write_object(path: Path, document: Mapping[str, object]) -> None:
    """Put a JSON object in a file's place, readable for its owner only; raises ConfigurationError."""
    target = Path(os.path.realpath(path))  # a link stays one
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)  # of mode 0600
        try:
            with os.fdopen(descriptor, "w") as opened:
                json.dump(document, opened, indent=2)
                opened.write("\n")
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or 'input/output error'}") from error
