"""An event as one line: JSON for machines, words for people. Nothing in an event can start a line or move the cursor.

Control characters, and the invisible ones that reorder text, are written as escapes wherever they come from: a name a
client sent must not be able to forge an entry or take over a terminal.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_LEVEL_COLOURS = {"debug": "\x1b[2m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31;1m"}
_RESET = "\x1b[0m"
_HIDDEN = [*range(0x20), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
_HIDDEN += range(0xD800, 0xE000)  # bytes that are no UTF-8 arrive as lone surrogates, which cannot be written
_ESCAPES = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _HIDDEN}
_ESCAPES |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
_TRACEBACK_ESCAPES = {code: escape for code, escape in _ESCAPES.items() if code not in {ord("\n"), ord("\t")}}


def render_json(created: float, level: str, event: str, fields: Mapping[str, object]) -> str:
    """Return an event as a JSON object on one line, in ASCII."""
    time = datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = {"time": time, "level": level, "event": event, **fields}
    # JSON leaves DEL as it is; everything beyond ASCII is already escaped.
    return json.dumps(line, default=str).replace("\x7f", "\\u007f")


def render_console(
    created: float, level: str, event: str, fields: Mapping[str, object], *, colours: bool = False
) -> str:
    """Return an event as people read it, `10:02:11 info    push complete repository=team-a/app`, a traceback below."""
    time = datetime.fromtimestamp(created, UTC).astimezone().strftime("%H:%M:%S")
    shown_level = f"{level:<7}"
    if colours and level in _LEVEL_COLOURS:
        shown_level = f"{_LEVEL_COLOURS[level]}{shown_level}{_RESET}"
    words = [time, shown_level, escape(event)]
    words += [f"{escape(key)}={_value(value)}" for key, value in fields.items() if key != "exception"]
    line = " ".join(words)
    trace = fields.get("exception")
    if trace is None:
        return line
    # Indented, so that a line break inside an exception's message cannot pass for an entry.
    lines = str(trace).translate(_TRACEBACK_ESCAPES).split("\n")
    return "\n    ".join([line, *lines])


def escape(text: str) -> str:
    """Return `text` with control and reordering characters written as escapes."""
    return text if text.isascii() and text.isprintable() else text.translate(_ESCAPES)


def _value(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if not text or any(character in text for character in ' "='):
        text = json.dumps(text, ensure_ascii=False)
    return escape(text)
