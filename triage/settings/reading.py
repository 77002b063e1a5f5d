"""The section about reading and answering."""

from __future__ import annotations

from triage.settings.parts import Section


class ReadingSettings(Section):
    """`[reading]`: what happens when a radiologist has read a study."""

    sign_off_with_read: bool = True
    """"Mark as read" signs the study off with the same click, which closes the answers to what the
    AI said; false leaves signing off to a button of its own."""
