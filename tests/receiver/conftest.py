"""A running receiver on a free port, and the senders that talk to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association

from tests.tools import find_free_port
from triage.pausing import lose_no_answer
from triage.receiver import Receiver
from triage.settings import Settings, load_settings
from triage.store.database import Database
from triage.store.files import InstanceFiles

StartReceiver = Callable[..., Receiver]


@pytest.fixture
def start_receiver(tmp_path: Path, files: InstanceFiles) -> Iterator[StartReceiver]:
    """A function that starts a receiver on a database; keywords are keys of `[receiver]`.

    `settings` are whole sections beside it, `remotes` the application entities that it may ask.
    """
    started: list[Receiver] = []

    def start(
        database: Database,
        *,
        instance_files: InstanceFiles | None = None,
        settings: dict[str, Any] | None = None,
        **receiver: Any,
    ) -> Receiver:
        loaded = receiver_settings(tmp_path / "data", sections=settings, **receiver)
        one = Receiver(loaded, database, instance_files or files)
        one.start()
        started.append(one)
        return one

    yield start
    for one in started:
        one.stop()


def receiver_settings(
    data_directory: Path,
    *,
    sections: dict[str, Any] | None = None,
    remotes: Sequence[dict[str, Any]] = (),
    **receiver: Any,
) -> Settings:
    """Return settings with short quiet periods and a free port."""
    defaults = {
        "port": find_free_port(),
        "minimum_free_mb": 0,
        "journal_mb": 2,
        "quiet_period_s": 0.3,
        "quiet_period_by_modality_s": {"CT": 0.2},
    }
    return load_settings(
        data_directory=data_directory,
        receiver={**defaults, **receiver},
        remotes=tuple(remotes),
        **(sections or {}),
    )


def port_of(receiver: Receiver) -> int:
    """Return the port that the receiver listens on."""
    return int(receiver.name.rsplit(":", 1)[1])


def associate(
    receiver: Receiver, *datasets: Dataset, calling: str = "SENDER", called: str = "TRIAGE"
) -> Association:
    """Open an association that proposes the SOP classes and transfer syntaxes of `datasets`."""
    entity = AE(ae_title=calling)
    proposed = {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets}
    for sop_class_uid, transfer_syntax_uid in sorted(proposed):
        entity.add_requested_context(sop_class_uid, transfer_syntax_uid)
    entity.add_requested_context("1.2.840.10008.1.1")
    return lose_no_answer(entity.associate("127.0.0.1", port_of(receiver), ae_title=called))


def send(receiver: Receiver, *datasets: Dataset, calling: str = "SENDER") -> list[Dataset]:
    """Send `datasets` over one association and return the responses."""
    association = associate(receiver, *datasets, calling=calling)
    assert association.is_established
    statuses = [association.send_c_store(dataset) for dataset in datasets]
    association.release()
    return statuses
