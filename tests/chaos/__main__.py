"""`python -m tests.chaos`: pulls through a cache whose upstreams misbehave at random; returns 1 when one went wrong."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.chaos.campaign import run


def main() -> int:
    """Run a campaign and show what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--pulls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(handlers=[logging.NullHandler()])  # the campaign says what matters
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        report = uvloop.run(run(Path(directory), options.pulls, options.seed, _say))
    for line in report.lines():
        _say(line)
    return 1 if report.violations else 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
