"""Tables of medians and ratios, as Markdown that also reads well on a terminal."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from tests.benchmarks.servers import OURS, STOCK, TUNED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.benchmarks.cases import Case, Scale
    from tests.benchmarks.loads import Sample
    from tests.benchmarks.memory import MemoryLine

NAMES = (OURS, STOCK, TUNED)
Results = dict[str, list["Sample"]]

HEADING = (
    "case",
    "rounds",
    "unit",
    *NAMES,
    "ours : stock",
    "ours : tuned",
    "server CPU in",
    *(f"CPU {name}" for name in NAMES),
)


def result_row(case: Case, scale: Scale, results: Results) -> tuple[str, ...]:
    """Return the line of one case. A ratio above 1 says that ours is better."""
    if not case.compares:
        samples = [sample for each in results.values() for sample in each]
        return (
            title(case, scale),
            str(len(results[OURS])),
            case.unit,
            "",
            _figure(median(sample.value for sample in samples)),
            *[""] * 7,
        )
    values = {name: median(sample.value for sample in results[name]) for name in NAMES}
    prices = {name: [sample.cpu for sample in results[name] if sample.cpu is not None] for name in NAMES}
    return (
        title(case, scale),
        str(len(results[OURS])),
        case.unit,
        *(_figure(values[name]) for name in NAMES),
        *(_ratio(case, values[OURS], values[name]) for name in (STOCK, TUNED)),
        case.cpu_unit,
        *(_figure(median(prices[name])) if prices[name] else "" for name in NAMES),
    )


def title(case: Case, scale: Scale) -> str:
    """Return a case's name for people."""
    return case.title.format(large=scale.large // 10**6)


def crowd_lines(results: Results, downloads: Mapping[str, Sequence[int]]) -> list[str]:
    """Say what a crowd's seconds do not: when everybody had a first byte, and what it cost the upstream."""
    lines = []
    for name in NAMES:
        first = median(sample.more[0] for sample in results[name])
        lines.append(
            f"- {name}: the last client had its first byte after {first:.2f} s; "
            f"upstream downloads of the blob: {', '.join(map(str, downloads[name]))}"
        )
    return lines


def memory_row(line: MemoryLine) -> tuple[str, ...]:
    """Return a line of the table of memory."""
    return (line.title, *(f"{line.values[name] / 1e6:.0f}" if name in line.values else "" for name in (OURS, STOCK)))


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table with its columns aligned."""
    widths = [max(len(row[index]) for row in (heading, *rows)) for index in range(len(heading))]
    ruler = ["-" * width for width in widths]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (heading, ruler, *rows)
    ]


def _ratio(case: Case, ours: float, theirs: float) -> str:
    return f"{ours / theirs if case.more_is_better else theirs / ours:.2f}"


def _figure(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
