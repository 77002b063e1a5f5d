"""The section about the worklist."""

from __future__ import annotations

from triage.settings.parts import Seconds, Section


class WorklistSettings(Section):
    """`[worklist]`: who reads what."""

    claim_expires_after_s: Seconds = 900.0
    """Seconds after which a study that somebody has claimed is free again; while they have its page
    open the claim is renewed."""
