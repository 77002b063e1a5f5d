"""Receivers that give and ask for storage commitment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from tests.receiver.conftest import receiver_settings, send
from triage.receiver import Receiver
from triage.settings import (
    CommitmentSettings,
    DicomDestination,
    RemoteSettings,
    RetentionSettings,
    Settings,
)
from triage.store.database import Database
from triage.store.files import InstanceFiles

StartCommitting = Callable[..., Receiver]


@pytest.fixture
def start_committing(tmp_path: Path, files: InstanceFiles) -> Iterator[StartCommitting]:
    """A function that starts a receiver which knows `remotes` and `destinations`.

    Further keywords are keys of `[commitment]`.
    """
    started: list[Receiver] = []

    def start(
        database: Database,
        *datasets: Dataset,
        remotes: tuple[RemoteSettings, ...] = (),
        destinations: tuple[DicomDestination, ...] = (),
        port: int | None = None,
        retention: dict[str, Any] | None = None,
        **commitment: Any,
    ) -> Receiver:
        base = receiver_settings(tmp_path / "data", **({} if port is None else {"port": port}))
        quick = {"same_association_s": 0.2, "first_retry_s": 0.2}
        settings = Settings(
            data_directory=base.data_directory,
            receiver=base.receiver,
            remotes=remotes,
            destinations=destinations,
            commitment=CommitmentSettings(**{**quick, **commitment}),
            retention=RetentionSettings(**retention or {}),
        )
        one = Receiver(settings, database, files)
        one.start()
        started.append(one)
        if datasets:
            assert {answer.Status for answer in send(one, *datasets)} == {0}
        return one

    yield start
    for one in started:
        one.stop()


def remote(
    ae_title: str, port: int, *, name: str = "pacs", timeout_s: float = 5.0
) -> RemoteSettings:
    """Return an application entity on this machine."""
    return RemoteSettings(
        name=name, ae_title=ae_title, host="127.0.0.1", port=port, timeout_s=timeout_s
    )
