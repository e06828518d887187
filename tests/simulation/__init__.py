"""The replication protocol in virtual time: the real decisions of `replicator.core`, everything around them a model.

`python -m tests.simulation` runs schedules on all cores; `--seed N --schedules 1 --trace` replays one.
"""
