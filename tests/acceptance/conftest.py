"""What every acceptance test has at hand: skopeo, and the logs of the programs that ran when it failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import processes
from tests.support.skopeo import Skopeo

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(scope="session")
def skopeo(tmp_path_factory: pytest.TempPathFactory) -> Skopeo:
    """Run skopeo; without it the test is skipped, or fails on CI."""
    return Skopeo(tmp_path_factory.mktemp("skopeo"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the end of what each running program wrote to the report of a failed test."""
    report = yield
    if report.failed:
        report.sections += [(str(process.errors_path), process.tail()) for process in processes.running]
    return report
