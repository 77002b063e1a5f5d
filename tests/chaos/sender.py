"""A sender that behaves as a modality does: what was not acknowledged is sent again, for ever.

It runs as a process of its own: `python -m tests.chaos.sender PORT AE_TITLE SEED INSTANCES LEDGER`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import sys
import time
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from tests.chaos.plan import Instance, Plan

_config.LOG_HANDLER_LEVEL = "none"

_TIMEOUT_S = 20.0
_PAUSE_S = (0.05, 0.4)


class Sender:
    """One modality: its own AE title, its own ledger of what was acknowledged."""

    def __init__(self, port: int, ae_title: str, plan: Plan, ledger: Path) -> None:
        self._port = port
        self._ae_title = ae_title
        self._plan = plan
        self._ledger_file = ledger
        self._chance = random.Random(f"pauses {ae_title} {plan.seed}")
        self.counts: Counter[str] = Counter()

    def run(self) -> None:
        """Send every study until each of its instances was acknowledged."""
        with self._ledger_file.open("ab", buffering=0) as ledger:
            for study in self._plan.studies:
                if self._ae_title in study.parts:
                    self._send_study(list(self._plan.instances_of(study, self._ae_title)), ledger)

    def _send_study(self, unsent: list[Instance], ledger: BinaryIO) -> None:
        while unsent:
            unsent = self._try(unsent, ledger)
            if unsent:
                time.sleep(self._chance.uniform(*_PAUSE_S))

    def _try(self, unsent: list[Instance], ledger: BinaryIO) -> list[Instance]:
        """Send over one association; return what was not acknowledged."""
        association = self._associate()
        if association is None:
            return unsent
        association._reactor_checkpoint.clear()
        while not association._is_paused:
            time.sleep(0.0005)
        left = []
        for number, instance in enumerate(unsent):
            status = self._send(association, instance, number)
            if status is None:
                left += unsent[number:]
                break
            if status == 0:
                self._acknowledged(instance, ledger)
            else:
                self.counts[f"status 0x{status:04X}"] += 1
                left.append(instance)
        self._end(association)
        return left

    def _associate(self) -> Association | None:
        entity = AE(ae_title=self._ae_title)
        entity.connection_timeout = entity.acse_timeout = _TIMEOUT_S
        entity.dimse_timeout = entity.network_timeout = _TIMEOUT_S
        entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        association = entity.associate(
            "127.0.0.1", self._port, evt_handlers=[(evt.EVT_CONN_OPEN, _without_delay)]
        )
        if association.is_established:
            self.counts["associations"] += 1
            return association
        self.counts["associations refused"] += 1
        return None

    def _send(self, association: Association, instance: Instance, number: int) -> int | None:
        """Return the status of the answer, None where the association broke before it came."""
        self.counts["sent"] += 1
        request = C_STORE()
        request.MessageID = number % 65535 + 1
        request.Priority = 2
        request.AffectedSOPClassUID = instance.sop_class_uid
        request.AffectedSOPInstanceUID = instance.sop_instance_uid
        request.DataSet = BytesIO(instance.encoded)
        (context,) = association.accepted_contexts
        response: Any = None
        try:
            association.dimse.send_msg(request, context.context_id)
            _, response = association.dimse.get_msg(block=True)
        except OSError:
            pass  # counted below, like every answer that did not come
        if response is None or response.Status is None:
            self.counts["answers that did not come"] += 1
            return None
        assert response.MessageIDBeingRespondedTo == request.MessageID
        return int(response.Status)

    def _acknowledged(self, instance: Instance, ledger: BinaryIO) -> None:
        digest = hashlib.sha256(instance.encoded).hexdigest()
        line = f"{instance.study_instance_uid} {instance.sop_instance_uid} {digest}\n"
        ledger.write(line.encode())
        os.fsync(ledger.fileno())
        self.counts["acknowledged"] += 1

    def _end(self, association: Association) -> None:
        association._reactor_checkpoint.set()
        if association.is_established and not association.dul.is_alive():
            association.abort()
        elif association.is_established:
            association.release()


def _without_delay(event: evt.Event) -> None:
    transport = event.assoc.dul.socket
    transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def main() -> None:
    """Send all, and leave what was counted beside the ledger."""
    port, ae_title, seed, instances, ledger = sys.argv[1:]
    file = Path(ledger)
    sender = Sender(int(port), ae_title, Plan(int(seed), int(instances)), file)
    sender.run()
    file.with_suffix(".json").write_text(json.dumps(sender.counts))


if __name__ == "__main__":
    main()
