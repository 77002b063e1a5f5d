"""`triage hl7`: what other systems would be sent."""

from __future__ import annotations

import click

from triage.commands.store import opened_store
from triage.core.errors import TriageError
from triage.settings import Hl7Destination, Settings, load_settings


class NothingToPreviewError(TriageError):
    """There is no message to show; the message says why."""


@click.group()
def hl7() -> None:
    """Look at the HL7 v2 messages of this installation."""


@hl7.command()
@click.argument("study")
@click.option("--destination", default="", help="Only what this destination would be sent.")
def preview(study: str, destination: str) -> None:
    """Print what HL7 destinations would be sent of STUDY, a Study Instance UID. Nothing is sent.

    A template of the site that cannot be filled in is named with its line and field.
    """
    from triage.results.hl7.messages import message_of
    from triage.store.notices import previewed_notices

    settings = load_settings()
    shown = 0
    for one in _destinations(settings, destination):
        with opened_store(settings) as store, store.reading() as session:
            notices = previewed_notices(session, study, one.name)
        for notice in notices:
            if notice.kind in one.notices:
                click.echo(f"# {notice.kind.value} to {one.name}")
                for segment in message_of(notice, one).segments:
                    click.echo(segment)
                click.echo()
                shown += 1
    if not shown:
        raise NothingToPreviewError(
            f"nothing would be sent of {study}: Triage holds no such study, or no model has "
            "found anything out about it yet"
        )


def _destinations(settings: Settings, name: str) -> list[Hl7Destination]:
    found = [
        d for d in settings.destinations if isinstance(d, Hl7Destination) and name in ("", d.name)
    ]
    if not found:
        named = f"named {name!r} " if name else ""
        raise NothingToPreviewError(
            f'no destination {named}with kind = "hl7" is configured; add one to [[destinations]]'
        )
    return found
