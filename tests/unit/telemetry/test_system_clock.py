from __future__ import annotations

import time
from typing import TYPE_CHECKING

from replicator.telemetry.system_clock import SystemClock

if TYPE_CHECKING:
    from replicator.core.clock import Clock


async def test_it_is_the_operating_systems_time() -> None:
    clock: Clock = SystemClock()
    before = time.time()  # noqa: TID251 - what it is compared with
    now = clock.now()
    assert before <= now <= time.time()  # noqa: TID251 - what it is compared with
    start = clock.monotonic()
    await clock.sleep(0.01)
    assert clock.monotonic() - start >= 0.009
