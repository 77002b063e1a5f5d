"""A receiver that holds a few studies, and the programs that look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from tests.receiver.conftest import receiver_settings, send
from triage.receiver import Receiver
from triage.settings import QuerySettings, RemoteSettings, Settings
from triage.store.database import Database
from triage.store.files import InstanceFiles

StartWith = Callable[..., Receiver]


@pytest.fixture
def start_with(tmp_path: Path, files: InstanceFiles) -> Iterator[StartWith]:
    """A function that starts a receiver which knows `remotes` and holds `datasets`."""
    started: list[Receiver] = []

    def start(
        database: Database,
        *datasets: Dataset,
        remotes: tuple[RemoteSettings, ...] = (),
        query: QuerySettings | None = None,
        **receiver: Any,
    ) -> Receiver:
        base = receiver_settings(tmp_path / "data", **receiver)
        settings = Settings(
            data_directory=base.data_directory,
            receiver=base.receiver,
            remotes=remotes,
            query=query or QuerySettings(),
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


def remote(name: str, ae_title: str, port: int, timeout_s: float = 10.0) -> RemoteSettings:
    """Return an application entity on this machine."""
    return RemoteSettings(
        name=name, ae_title=ae_title, host="127.0.0.1", port=port, timeout_s=timeout_s
    )
