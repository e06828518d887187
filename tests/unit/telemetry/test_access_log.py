from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

from replicator.config.secrets import Secret
from replicator.telemetry import access_log as module
from replicator.telemetry.access_log import FLUSH_CHARACTERS, AccessLog
from replicator.telemetry.redaction import Redactor
from tests.support.clock import FakeClock

CANARY = "canary-5f2a91"


class Output:
    """Takes what is written; can be held up, as a pipe that nobody reads, or refuse, as a full disk."""

    def __init__(self) -> None:
        self.data = b""
        self.error: Exception | None = None
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()

    def write(self, data: bytes) -> None:
        self.reached.set()
        assert self.open.wait(10)
        if self.error is not None:
            raise self.error
        self.data += data

    def lines(self) -> list[str]:
        return self.data.decode().splitlines()


def access_log(output: Output, *, as_json: bool = True) -> AccessLog:
    return AccessLog(FakeClock(1_750_000_000.0), Redactor([Secret(CANARY)]), as_json=as_json, write=output.write)


def record(log: AccessLog, **more: str) -> None:
    fields = {"client": "127.0.0.1", "method": "GET", "path": "/v2/a/manifests/1", "agent": "docker/27.0", **more}
    log.record("n/us", status=200, seconds=0.00125, sent=10, received=0, user="ci", request_id="r-1", **fields)


def test_an_operation_of_the_ecr_api_is_named() -> None:
    """All of them come to one path."""
    output = Output()
    log = access_log(output)
    record(log, path="/", operation="ecr:PutImage")
    log.close()
    assert [json.loads(line)["operation"] for line in output.lines()] == ["ecr:PutImage"]
    output = Output()
    log = access_log(output, as_json=False)
    record(log, path="/", operation="ecr:PutImage")
    log.close()
    assert "user=ci operation=ecr:PutImage" in output.lines()[0]


def test_a_request_is_one_json_object() -> None:
    output = Output()
    log = access_log(output)
    record(log)
    log.close()
    assert [json.loads(line) for line in output.lines()] == [
        {
            "time": "2025-06-15T15:06:40Z", "node": "n/us", "client": "127.0.0.1", "method": "GET",
            "path": "/v2/a/manifests/1", "status": 200, "seconds": 0.00125, "sent": 10, "received": 0, "user": "ci",
            "agent": "docker/27.0", "request_id": "r-1",
        }
    ]  # fmt: skip


def test_a_pull_of_a_cached_repository_says_how_the_cache_answered() -> None:
    output = Output()
    log = access_log(output)
    record(log, cache="stale", upstream="hub")
    log.close()
    [line] = [json.loads(line) for line in output.lines()]
    assert (line["request_id"], line["cache"], line["upstream"]) == ("r-1", "stale", "hub")


def test_a_pull_of_a_cached_repository_says_so_to_people_too() -> None:
    output = Output()
    log = access_log(output, as_json=False)
    record(log, cache="miss", upstream="hub")
    log.close()
    assert output.lines()[0].endswith("user=ci cache=miss upstream=hub")


def test_a_request_is_one_line_for_people() -> None:
    output = Output()
    log = access_log(output, as_json=False)
    record(log)
    log.close()
    [line] = output.lines()
    assert line[8:] == (
        " access  GET /v2/a/manifests/1 200 1.2ms sent=10 received=0 node=n/us client=127.0.0.1 user=ci"
    )


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("field", ["client", "method", "path", "agent"])
@pytest.mark.parametrize(
    "hostile", ['"', "\\", "\n", "\r\x1b[2J", "\x7f", "\u2028", "ü", "\udc80", '","status":500,"x":"']
)
def test_a_client_cannot_break_a_line(as_json: bool, field: str, hostile: str) -> None:
    output = Output()
    log = access_log(output, as_json=as_json)
    record(log, **{field: f"a{hostile}b"})
    log.close()
    [line] = output.data.decode().split("\n")[:-1]
    assert line.isprintable()
    if as_json:
        value = json.loads(line)
        assert value[field] == f"a{hostile}b"
        assert value["status"] == 200


@pytest.mark.parametrize("as_json", [True, False])
def test_a_secret_in_a_request_is_not_written(as_json: bool) -> None:
    output = Output()
    log = access_log(output, as_json=as_json)
    record(log, path=f"/v2/{CANARY}/x", agent=f"x{CANARY}")
    log.close()
    assert "canary" not in output.data.decode()
    assert "/v2/[redacted]/x" in output.data.decode()


def test_the_time_moves_on() -> None:
    output = Output()
    clock = FakeClock(1_750_000_000.9)
    log = AccessLog(clock, Redactor(), write=output.write)
    for _ in range(3):
        record(log)
        clock.advance(0.06)
    log.close()
    assert [json.loads(line)["time"][-3:] for line in output.lines()] == ["40Z", "40Z", "41Z"]


def test_nothing_is_lost_at_an_orderly_end() -> None:
    output = Output()
    log = access_log(output)
    for number in range(5000):
        record(log, path=f"/{number}")
    log.close()
    assert [json.loads(line)["path"] for line in output.lines()] == [f"/{number}" for number in range(5000)]
    assert log.dropped == 0


def test_a_full_buffer_is_written_without_waiting_for_the_second() -> None:
    output = Output()
    log = access_log(output)
    record(log)
    assert not output.reached.is_set()
    for _ in range(FLUSH_CHARACTERS // 100):
        record(log)
    assert output.reached.wait(10)
    log.close()


async def test_lines_are_written_every_second() -> None:
    output = Output()
    clock = FakeClock()
    log = AccessLog(clock, Redactor(), write=output.write)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(log.run())
        await clock.sleepers(1)
        record(log)
        clock.advance(1.0)
        assert await asyncio.to_thread(output.reached.wait, 10)
        running.cancel()
    log.close()
    assert len(output.lines()) == 1


def test_an_output_that_nobody_reads_does_not_hold_up_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 2 * FLUSH_CHARACTERS)
    output = Output()
    output.open.clear()
    log = access_log(output)
    started = time.monotonic()
    for _ in range(5000):
        record(log)
    assert time.monotonic() - started < 5
    log.flush()
    assert log.dropped > 0
    output.open.set()
    log.close()
    assert len(output.lines()) + log.dropped == 5000


async def test_lines_that_are_lost_are_counted_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    output = Output()
    output.error = BrokenPipeError()
    clock = FakeClock()
    log = AccessLog(clock, Redactor(), write=output.write)
    record(log)
    log.close()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(log.run())
        await clock.sleepers(1)
        clock.advance(1.0)
        await clock.sleepers(1)
        running.cancel()
    [message] = [one.msg for one in caplog.records if one.name == module.__name__]
    assert isinstance(message, dict)
    assert (message["event"], message["lines"]) == ("access log lost lines", 1)


def test_the_log_goes_on_after_a_failed_write() -> None:
    output = Output()
    output.error = OSError(28, "No space left on device")
    log = access_log(output)
    record(log, path="/lost")
    log.flush()
    assert output.reached.wait(10)
    while log.lost == 0:
        time.sleep(0.001)
    output.error = None
    record(log, path="/kept")
    log.close()
    assert [json.loads(line)["path"] for line in output.lines()] == ["/kept"]


def test_a_blocked_output_does_not_keep_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.01)
    output = Output()
    output.open.clear()
    log = access_log(output)
    record(log)
    log.close()
    assert output.data == b""
    output.open.set()
