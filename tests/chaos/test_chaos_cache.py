"""A part of the campaign that `make chaos-cache` runs in full."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos.campaign import run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.xdist_group("chaos")]


async def test_no_complete_answer_is_wrong_and_none_hangs_whatever_the_upstreams_do(tmp_path: Path) -> None:
    report = await run(tmp_path, pulls=1600, seed=1)
    assert not report.violations, "\n".join(report.lines())
    # Enough went wrong for this to mean something.
    assert len(report.faults) >= 20
    assert report.answers["blob: 200"] > 100
    assert report.lives >= 2
