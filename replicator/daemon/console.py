"""Where commands print tables: as wide as the terminal, and not cut where there is none."""

from __future__ import annotations

import sys

from rich.console import Console

_WIDE = 400


def open_console() -> Console:
    """Return a console on standard output, for text that is not marked up by accident."""
    width = None if sys.stdout.isatty() else _WIDE
    return Console(highlight=False, soft_wrap=True, markup=False, width=width)
