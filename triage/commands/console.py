"""Where the commands write."""

from __future__ import annotations

import sys

from rich.console import Console

# Where there is no terminal, rich takes 80 columns, in which no table of ours is readable.
out = Console() if sys.stdout.isatty() else Console(width=160)
