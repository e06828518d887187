"""How `cache warm` shows what a node says, on a terminal and elsewhere."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from replicator.core.errors import InvalidInput
from replicator.daemon.cache_warm_command import Warming, run
from tests.support.answering_nodes import Answering, asking, serving

if TYPE_CHECKING:
    from pathlib import Path

US = "111122223333/us-east-1"


def line(state: str, done: int = 0, **fields: Any) -> bytes:
    document = {"state": state, "blobs": 2, "bytes": 2048, "bytes_done": done, "error": None, **fields}
    return json.dumps(document).encode() + b"\n"


async def warm(tmp_path: Path, body: bytes, warming: Warming, **options: Any) -> int:
    async with serving([Answering(200, body)]) as ports:
        return await asyncio.to_thread(run, asking(tmp_path, ports, **options), warming)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_lines_are_written_when_something_has_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = line("fetching") + line("fetching", 1024) + line("complete", 2048)
    assert await warm(tmp_path, body, Warming(("nginx",))) == 0
    assert capsys.readouterr().out.splitlines() == [
        "nginx: fetching",
        "nginx: complete, 2.0 KiB in 2 blobs",
        f"{US}: 1 of 1 images complete, 2.0 KiB",
    ]


async def test_bars_are_drawn_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    body = line("waiting") + line("fetching", 1024) + line("complete", 2048)
    assert await warm(tmp_path, body, Warming(("ngi[b]nx", "busybox"))) == 0
    assert "2 of 2 images" in terminal.getvalue()
    assert terminal.getvalue().endswith(f"{US}: 2 of 2 images complete, 4.0 KiB\n")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the node broke off; ask again for the rest"),
        (line("fetching", 7), "the node broke off; ask again for the rest"),
        (line("failed", error="hub: no answer"), "hub: no answer"),
        (b"nonsense\n", "answered with a line that is no JSON"),
    ],
)
async def test_what_fails_is_said_and_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], body: bytes, reason: str
) -> None:
    assert await warm(tmp_path, body, Warming(("nginx",))) == 1
    shown = capsys.readouterr()
    assert shown.err == f"replicator: nginx: {reason}\n"
    assert shown.out.splitlines()[-1] == f"{US}: 0 of 1 images complete, 0 B, 1 failed"


async def test_json_has_every_image_and_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "deploy"
    folder.mkdir()
    (folder / "pod.yaml").write_text("containers: [{image: one}, {image: $(TWO)}]")
    names = tmp_path / "names.txt"
    names.write_text("\ufeffthree # why\n#\n\n one \nthree\n")
    body = line("complete", 2048)
    assert await warm(tmp_path, body, Warming(("one",), names, folder), as_json=True) == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["image"] for one in found["images"]] == ["one", "three", "docker.io/library/one:latest"]
    assert [(one["file"], one["line"]) for one in found["problems"]] == [("pod.yaml", 1)]


def test_a_list_is_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="it is not UTF-8 text"):
        run(asking(tmp_path, [1]), Warming((), bad))
    with pytest.raises(InvalidInput, match=r"cannot read .*nothing: No such file"):
        run(asking(tmp_path, [1]), Warming((), tmp_path / "nothing"))
    monkeypatch.setattr("replicator.daemon.cache_warm_command.MAX_LIST", 3)
    bad.write_text("long")
    with pytest.raises(InvalidInput, match="expected a list of at most"):
        run(asking(tmp_path, [1]), Warming((), bad))
