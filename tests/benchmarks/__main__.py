"""`python -m tests.benchmarks`: our daemon and docker-registry side by side, in alternation.

Needs docker-registry, wrk and hey (`make tools`). Everything runs on loopback in a directory below /tmp that is gone
afterwards, as are all processes.
"""

from __future__ import annotations

import argparse
import random
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks import memory, replication, report
from tests.benchmarks.cases import CASES, FULL, QUICK, Case, Place, Scale, Scene
from tests.benchmarks.environment import describe
from tests.benchmarks.servers import OURS, Field
from tests.support.processes import running

_MEMORY, _REPLICATION, _CACHE = "memory", "replication", "cache"
_CASE_BUDGET = 50.0
"""Seconds after which a case begins no further round: a machine that others use too must not make a run endless."""
_DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"
_RESULTS = "results"
_Measured = tuple[Case, report.Results]


def main() -> None:
    """Measure what is asked for, print it, and write it down if that is asked for too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended, too
    options = _options()
    scale = QUICK if options.quick else FULL
    names = options.only or [*(case.name for case in CASES), _REPLICATION, _MEMORY]
    arguments = shlex.join(sys.argv[1:])
    command = f'make bench ARGS="{arguments}"' if arguments else "make bench"
    lines = [f"- {line}" for line in describe(command)]
    lines.append(
        f"- Medians of up to {scale.rounds} rounds, the servers in a new order in each. Ratios above 1: ours is better"
    )
    _say("\n".join(lines))
    tables: dict[str, list[str]] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="replicator-bench-", dir="/tmp") as directory:
            tables = _measure(Path(directory), scale, names)
    finally:
        for process in tuple(running):
            process.kill()
    for section, found in tables.items():
        _say("\n".join(["", *found]))
        if options.write:
            _write(section, [*lines, *found])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of smaller work")
    names = [*(case.name for case in CASES), _CACHE, _REPLICATION, _MEMORY]
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="NAME",
        help=f"one of {', '.join(names)}; {_CACHE} is all that is about the cache",
    )
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{_DOCUMENT.name}")
    return parser.parse_args()


def _measure(directory: Path, scale: Scale, names: list[str]) -> dict[str, list[str]]:
    """Return the tables by the section of the document that they belong to."""
    found: dict[str, list[str]] = {}
    lines = _plain(_run_all(directory, scale, Place.REGISTRIES, names), scale)
    if _MEMORY in names:
        lines += _memory(directory, scale)
    if lines:
        found[_RESULTS] = lines
    cached = [*_run_all(directory, scale, Place.CACHES, names), *_run_all(directory, scale, Place.DISTANT, names)]
    if cached:
        found[_CACHE] = [*_plain(cached, scale), *_of_caches(cached, scale)]
    if _REPLICATION in names:
        size = replication.QUICK if scale is QUICK else replication.FULL
        found[_REPLICATION] = ["", *report.table(replication.HEADING, replication.measure(directory, size))]
    return found


def _run_all(directory: Path, scale: Scale, place: Place, names: list[str]) -> list[_Measured]:
    """Take the samples of the named cases of one place."""
    wanted = {*names, *(case.name for case in CASES if _CACHE in names and case.place is not Place.REGISTRIES)}
    cases = [case for case in CASES if case.place is place and case.name in wanted]
    measured: list[_Measured] = []
    if cases:
        caches, distant = place is not Place.REGISTRIES, place is Place.DISTANT
        with Field(directory / place.name.lower(), caches=caches, distant=distant) as field:
            scene = Scene(field, scale)
            scene.prepare()
            for case in cases:
                measured.append((case, _run(case, scene)))
                _say(" | ".join(report.result_row(case, scale, measured[-1][1])))
    return measured


def _plain(measured: list[_Measured], scale: Scale) -> list[str]:
    rows = [report.result_row(case, scale, results) for case, results in measured]
    return ["", *report.table(report.HEADING, rows)] if rows else []


def _of_caches(measured: list[_Measured], scale: Scale) -> list[str]:
    """Return the tables of what only caches have."""
    cold: list[tuple[str, ...]] = []
    crowds: list[tuple[str, ...]] = []
    for case, results in measured:
        more = results[OURS][0].more
        if "direct seconds" in more:
            cold += report.cold_rows(case, scale, results)
        if "downloads" in more:
            crowds += report.crowd_rows(case, scale, results)
    lines = []
    for heading, rows in ((report.COLD_HEADING, cold), (report.CROWD_HEADING, crowds)):
        lines += ["", *report.table(heading, rows)] if rows else []
    return lines


def _run(case: Case, scene: Scene) -> report.Results:
    servers = [server for server in scene.field.servers if server.name in case.servers]
    results: report.Results = {server.name: [] for server in servers}
    began = time.monotonic()
    for number in range(min(scene.scale.rounds, case.most_rounds)):
        if time.monotonic() - began > _CASE_BUDGET:
            break
        for server in random.sample(servers, k=len(servers)):
            results[server.name].append(case.measure(scene, server, number))
    return results


def _memory(directory: Path, scale: Scale) -> list[str]:
    if not memory.has_room(directory, scale.huge):
        return ["", "Memory was not measured: there is not enough room on the disk."]
    rows = [report.memory_row(line) for line in memory.measure(directory, scale.huge)]
    return ["", *report.table(("resident memory, MB", "ours", "stock"), rows)]


def _write(section: str, lines: list[str]) -> None:
    begin, end = f"<!-- {section}: start -->", f"<!-- {section}: end -->"
    before, _, rest = _DOCUMENT.read_text().partition(begin)
    after = rest.partition(end)[2]
    _DOCUMENT.write_text("\n".join([f"{before}{begin}", "", *lines, "", f"{end}{after}"]))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
