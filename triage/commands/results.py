"""`triage results`: what becomes of the results of analyses."""

from __future__ import annotations

import click


@click.group()
def results() -> None:
    """Look after the results of analyses."""
