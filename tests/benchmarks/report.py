"""Tables of medians and ratios, as Markdown that also reads well on a terminal."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from tests.benchmarks.servers import OURS, STOCK, TUNED

if TYPE_CHECKING:
    from collections.abc import Sequence

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


COLD_HEADING = (
    "cold pull",
    "server",
    "total, s",
    "direct, s",
    "total : direct",
    "first byte, ms",
    "direct, ms",
)

CROWD_HEADING = (
    "crowd",
    "server",
    "all have it, s",
    "all have a first byte, s",
    "upstream downloads",
    "memory at its highest, MB",
)


def result_row(case: Case, scale: Scale, results: Results) -> tuple[str, ...]:
    """Return the line of one case. A ratio above 1 says that ours is better."""
    values = {name: median(sample.value for sample in samples) for name, samples in results.items()}
    prices = {name: [sample.cpu for sample in samples if sample.cpu is not None] for name, samples in results.items()}
    return (
        title(case, scale),
        str(len(results[OURS])),
        case.unit,
        *(_figure(values[name]) if name in values else "" for name in NAMES),
        *(_ratio(case, values[OURS], values[name]) if name in values else "" for name in (STOCK, TUNED)),
        case.cpu_unit,
        *(_figure(median(prices[name])) if prices.get(name) else "" for name in NAMES),
    )


def title(case: Case, scale: Scale) -> str:
    """Return a case's name for people."""
    return case.title.format(large=scale.large // 10**6, many=f"{scale.many:,}")


def cold_rows(case: Case, scale: Scale, results: Results) -> list[tuple[str, ...]]:
    """Return what cold pulls took beside pulls of the same bytes straight from the upstream.

    The ratio is the median of each round's, not the ratio of the medians.
    """
    return [
        (
            title(case, scale),
            name,
            _figure(_middle(samples, "seconds")),
            _figure(_middle(samples, "direct seconds")),
            f"{median(sample.more['seconds'] / sample.more['direct seconds'] for sample in samples):.2f}",
            _figure(_middle(samples, "first_byte") * 1000),
            _figure(_middle(samples, "direct first_byte") * 1000),
        )
        for name, samples in results.items()
    ]


def crowd_rows(case: Case, scale: Scale, results: Results) -> list[tuple[str, ...]]:
    """Return what crowds waited for, and what they cost the upstream and the server."""
    return [
        (
            title(case, scale),
            name,
            _figure(median(sample.value for sample in samples)),
            _figure(_middle(samples, "last_first_byte")),
            ", ".join(f"{sample.more['downloads']:,.0f}" for sample in samples),
            f"{max(sample.more['memory'] for sample in samples) / 1e6:.0f}",
        )
        for name, samples in results.items()
    ]


def _middle(samples: Sequence[Sample], name: str) -> float:
    return median(sample.more[name] for sample in samples)


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
