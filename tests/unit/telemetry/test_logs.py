from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING

import pytest

from replicator.config.model import LogFormat, LogLevel
from replicator.config.secrets import Secret
from replicator.telemetry.logs import EventFormatter, configure_logging, get_logger, is_json
from replicator.telemetry.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY = "canary-5f2a91"
log = get_logger("replicator.test")


class Output(io.StringIO):
    def __init__(self, *, terminal: bool = False) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def json(self) -> dict[str, object]:
        [line] = self.getvalue().splitlines()
        value = json.loads(line)
        assert isinstance(value, dict)
        return value


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


def configure(style: LogFormat, level: LogLevel = LogLevel.INFO, *, terminal: bool = False) -> Output:
    output = Output(terminal=terminal)
    configure_logging(level, style, Redactor([Secret(CANARY)]), output)
    return output


def test_an_event_is_one_json_object() -> None:
    output = configure(LogFormat.JSON)
    log.info("push complete", repository="team-a/app", size=3)
    line = output.json()
    assert str(line.pop("time")).endswith("Z")
    assert line == {
        "level": "info", "event": "push complete", "logger": "replicator.test", "repository": "team-a/app", "size": 3,
    }  # fmt: skip


def test_an_event_is_one_line_for_people() -> None:
    output = configure(LogFormat.CONSOLE)
    log.info("push complete", repository="team-a/app", seconds=1.25, note="two words", empty="")
    line = output.getvalue()
    assert line[2] == line[5] == ":"
    assert line[8:] == ' info    push complete repository=team-a/app seconds=1.25 note="two words" empty=""\n'


def test_levels_are_coloured_on_a_terminal_only() -> None:
    for terminal in (True, False):
        output = configure(LogFormat.CONSOLE, terminal=terminal)
        log.error("disk full")
        assert ("\x1b[31m" in output.getvalue()) is terminal


def test_auto_means_words_on_a_terminal() -> None:
    assert is_json(LogFormat.AUTO, Output(terminal=False))
    assert not is_json(LogFormat.AUTO, Output(terminal=True))
    assert is_json(LogFormat.JSON, Output(terminal=True))
    assert not is_json(LogFormat.CONSOLE, Output(terminal=False))


def test_events_below_the_level_are_not_written() -> None:
    output = configure(LogFormat.JSON, LogLevel.WARNING)
    log.info("not this")
    log.warning("but this")
    assert output.json()["event"] == "but this"


def test_configuring_again_replaces() -> None:
    first = configure(LogFormat.JSON)
    second = configure(LogFormat.JSON)
    log.info("once")
    assert first.getvalue() == ""
    assert second.json()["event"] == "once"
    assert sum(isinstance(one.formatter, EventFormatter) for one in logging.getLogger().handlers) == 1


def test_other_libraries_take_the_same_way_out() -> None:
    output = configure(LogFormat.JSON)
    logging.getLogger("aiohttp.server").warning("bad request from %s", CANARY)
    line = output.json()
    assert line["event"] == "bad request from [redacted]"
    assert (line["logger"], line["level"]) == ("aiohttp.server", "warning")


def refuse(text: str) -> None:
    raise ValueError(text)


def fail() -> None:
    try:
        refuse(f"inner {CANARY}")
    except ValueError as error:
        raise RuntimeError({"password": CANARY}) from error


class Careless:
    def __repr__(self) -> str:
        return f"Careless({CANARY!r})"


@pytest.mark.parametrize("style", [LogFormat.JSON, LogFormat.CONSOLE])
def test_no_secret_is_ever_written(style: LogFormat) -> None:
    output = configure(style, LogLevel.DEBUG)
    other = logging.getLogger("other")
    log.info("one", value=CANARY, nested={"a": [CANARY, {"b": CANARY}]}, careless=Careless())
    log.info(f"two {CANARY}")  # noqa: G004 - what must not be done must not harm either
    log.debug("three", headers={"Authorization": f"Basic {CANARY}"}, **{f"key-{CANARY}": 1})
    other.info("four %s %r", CANARY, Careless())
    try:
        fail()
    except RuntimeError:
        log.exception("five", text=f"x{CANARY}x", url=f"https://hub/?key={CANARY}")
        other.exception("six %s", CANARY)
    written = output.getvalue()
    assert "canary" not in written
    for word in ("one", "two", "three", "four", "five", "six", "RuntimeError", "ValueError", "[redacted]"):
        assert word in written


@pytest.mark.parametrize("style", [LogFormat.JSON, LogFormat.CONSOLE])
def test_nobody_forges_a_line_or_drives_the_terminal(style: LogFormat) -> None:
    output = configure(style)
    hostile = "x\r\n10:02:11 info    push complete\x1b[2J\x7f\x9b31m\u2028\u202e\x00\udc80"
    log.info(hostile, path=hostile, **{hostile: 1})
    logging.getLogger("other").info("%s", hostile)
    written = output.getvalue()
    assert written.count("\n") == 2
    assert all(character == "\n" or character.isprintable() for character in written)


def test_an_exceptions_message_cannot_pass_for_an_entry() -> None:
    output = configure(LogFormat.CONSOLE)
    try:
        refuse("x\n10:02:11 info    push complete\x1b[2J")
    except ValueError:
        log.exception("push failed")
    first, *more = output.getvalue().rstrip("\n").split("\n")
    assert first.endswith("error   push failed")
    assert all(line.startswith("    ") for line in more)
    assert "\x1b" not in output.getvalue()


def test_what_json_does_not_know_is_written_as_text() -> None:
    output = configure(LogFormat.JSON)
    log.info("odd", raw=b"\xff", kind=LogLevel.INFO, items={1})
    assert output.json()["raw"] == r"b'\xff'"
    assert output.json()["kind"] == "info"
