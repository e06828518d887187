"""Properties are checked on the same examples in every run, so that a failure is a change of ours."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("core", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("core")
