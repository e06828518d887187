"""Sizes and durations as people write them: `10GiB` becomes bytes, `1h30m` becomes seconds.

Inside the program sizes are always bytes and durations always seconds; this is the only place that knows suffixes.
A duration needs a unit, because `30` could be meant as anything; a size without one is bytes.
"""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)")
_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_MAX_SIZE = 2**63 - 1
_DURATION_PATTERN = r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+"
_DURATION = re.compile(_DURATION_PATTERN)
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DAY = 86400
_MAX_DURATION = 100 * 365 * 86400.0
_MAX_TEXT = 40
OFF = "off"
FOREVER = "forever"
_MAX_SHOWN = 60


def parse_size(value: object) -> int:
    """Return `123`, `500MB` or `10GiB` as bytes; raise ValueError when it is anything else."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(text, str) and len(text) <= _MAX_TEXT and (found := _SIZE.fullmatch(text)):
        factor = _SIZE_UNITS.get(found[2].lower())
        if factor is not None:
            size = int(found[1]) * factor if found[1].isdecimal() else round(float(found[1]) * factor)
            if size <= _MAX_SIZE:
                return size
    raise ValueError(f"expected a size such as 10GiB, 500MB or 4096, got {shown(value)}")


def parse_duration(value: object) -> float:
    """Return `30s`, `7d` or `1h30m` as seconds; raise ValueError when it is anything else."""
    if isinstance(value, str) and len(value) <= _MAX_TEXT and _DURATION.fullmatch(value):
        seconds = math.fsum(float(count) * _DURATION_UNITS[unit] for count, unit in _DURATION_PART.findall(value))
        if seconds <= _MAX_DURATION:
            return seconds
    raise ValueError(f"expected a duration such as 30s, 24h or 1h30m, got {shown(value)}")


def positive_size(value: object) -> int:
    """Return a size that is not zero; raise ValueError otherwise."""
    size = parse_size(value)
    if size == 0:
        raise ValueError(f"expected a size above zero, got {shown(value)}")
    return size


def positive_duration(value: object) -> float:
    """Return a duration that is not zero; raise ValueError otherwise."""
    seconds = parse_duration(value)
    if seconds == 0:
        raise ValueError(f"expected a duration above zero, got {shown(value)}")
    return seconds


def duration_or_off(value: object) -> float:
    """Return a duration that is not zero, or zero for `off`; raise ValueError otherwise."""
    return 0.0 if value == OFF else positive_duration(value)


def duration_or_any(value: object) -> float:
    """Return a duration, zero for `off`, or for `forever` the longest there is; raise ValueError otherwise."""
    return _MAX_DURATION if value == FOREVER else duration_or_off(value)


def format_size(size: int) -> str:
    """Return a size as the file writes it: `8MiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        factor = _SIZE_UNITS[unit.lower()]
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def format_duration(seconds: float) -> str:
    """Return a duration as the file writes it: `24h`, `7d`."""
    if seconds > _DAY and seconds % _DAY == 0:
        return f"{seconds / _DAY:.0f}d"
    for unit, factor in (("h", 3600), ("m", 60), ("s", 1)):
        if seconds and seconds % factor == 0:
            return f"{seconds / factor:.0f}{unit}"
    return f"{seconds * 1000:.0f}ms"


def shown(value: object) -> str:
    """Return a configured value as an error message may quote it: short, and never the inside of a mapping or list."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 4] + "...'"


SIZE_SCHEMA = {
    "type": ["integer", "string"],
    "minimum": 1,
    "pattern": r"^[0-9]+(\.[0-9]+)? ?([kKmMgGtT][iI]?)?[bB]?$",
    "examples": ["10GiB", "500MB", 4096],
}
DURATION_SCHEMA = {"type": "string", "pattern": f"^{_DURATION_PATTERN}$", "examples": ["30s", "24h", "1h30m"]}
DURATION_OR_OFF_SCHEMA = {**DURATION_SCHEMA, "pattern": f"^(off|{_DURATION_PATTERN})$", "examples": ["15m", "off"]}
DURATION_OR_ANY_SCHEMA = {
    **DURATION_SCHEMA,
    "pattern": f"^(off|forever|{_DURATION_PATTERN})$",
    "examples": ["24h", "off", "forever"],
}

Size = Annotated[int, BeforeValidator(positive_size), WithJsonSchema(SIZE_SCHEMA)]
Duration = Annotated[float, BeforeValidator(positive_duration), WithJsonSchema(DURATION_SCHEMA)]
DurationOrOff = Annotated[float, BeforeValidator(duration_or_off), WithJsonSchema(DURATION_OR_OFF_SCHEMA)]
DurationOrAny = Annotated[float, BeforeValidator(duration_or_any), WithJsonSchema(DURATION_OR_ANY_SCHEMA)]
