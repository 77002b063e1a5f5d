"""How the receiver knows what a C-MOVE of ours has brought (DICOM PS3.7 9.1.1.1).

In the sub-operations of a C-MOVE the archive names who asked for it: Move Originator Application
Entity Title and Move Originator Message ID. A move for priors has a Message ID of its own. What
does not carry it, be it routed by the archive at the same moment, is never taken for a prior: a
study that is to be read must not be kept off the worklist.
"""

from __future__ import annotations

from triage.receiver.command_set import StoreRequest

ORDINARY_MOVE = 1
PRIORS_MOVE = 0x5052


def is_of_priors_move(request: StoreRequest, ae_title: str) -> bool:
    """Return whether an instance was sent because we asked for a prior by C-MOVE."""
    return (
        request.move_originator_message_id == PRIORS_MOVE
        and request.move_originator_ae_title == ae_title
    )
