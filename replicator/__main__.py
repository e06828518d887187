"""`python -m replicator` is the command line."""

from __future__ import annotations

from replicator.daemon.cli import main

main()
