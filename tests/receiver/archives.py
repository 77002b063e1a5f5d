"""Archives of two makers to pull from: DCMTK's dcmqrscp and Orthanc, on free ports."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from tests.orthanc import Orthanc
from tests.tools import find_free_port, require_tool, wait_until
from triage.receiver.retrieve.dimse import FIND, MOVE
from triage.settings import RemoteSettings


def file_of(dataset: Dataset) -> bytes:
    """Return the data set as a DICOM file."""
    content = io.BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    return content.getvalue()


def remote(port: int, *, name: str = "pacs", **more: object) -> RemoteSettings:
    """Return how Triage reaches an archive of the AE title ARCHIVE on this machine."""
    values = {
        "name": name,
        "ae_title": "ARCHIVE",
        "host": "127.0.0.1",
        "port": port,
        "timeout_s": 20.0,
    }
    return RemoteSettings.model_validate({**values, **more})


@contextmanager
def dcmqrscp(folder: Path, *datasets: Dataset, move_to: int = 104) -> Iterator[RemoteSettings]:
    """Run DCMTK's archive with `datasets` in it; it knows TRIAGE at the port `move_to`."""
    program = require_tool("dcmqrscp")
    port = find_free_port()
    storage = folder / "dcmqrscp"
    storage.mkdir(parents=True)
    configuration = folder / "dcmqrscp.cfg"
    configuration.write_text(
        f"""NetworkTCPPort = {port}
MaxPDUSize = 131072
MaxAssociations = 16
HostTable BEGIN
triage = (TRIAGE, 127.0.0.1, {move_to})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
ARCHIVE {storage} RW (1000, 100mb) ANY
AETable END
"""
    )
    with (folder / "dcmqrscp.log").open("wb") as log:
        server = subprocess.Popen(
            [program, "--config", str(configuration)],
            stdout=log,
            stderr=log,
            env={**os.environ, "TCP_NODELAY": "1"},
        )
        try:
            wait_until(lambda: _answers(port), "dcmqrscp answers")
            _send(folder, port, datasets)
            yield remote(port)
        finally:
            server.kill()
            server.wait(10)


def _answers(port: int) -> bool:
    echo = [require_tool("echoscu"), "-aec", "ARCHIVE", "127.0.0.1", str(port)]
    return subprocess.run(echo, capture_output=True, check=False).returncode == 0


def _send(folder: Path, port: int, datasets: Sequence[Dataset]) -> None:
    files = folder / "to-send"
    files.mkdir()
    for number, dataset in enumerate(datasets):
        (files / f"{number:04}.dcm").write_bytes(file_of(dataset))
    if datasets:
        subprocess.run(
            [
                require_tool("dcmsend"),
                "--scan-directories",
                "-aec",
                "ARCHIVE",
                "127.0.0.1",
                str(port),
                str(files),
            ],
            check=True,
            capture_output=True,
            env={**os.environ, "TCP_NODELAY": "1"},
        )


@contextmanager
def orthanc_with(
    folder: Path, *datasets: Dataset, move_to: int = 104, dicomweb: bool = True
) -> Iterator[tuple[Orthanc, RemoteSettings]]:
    """Run Orthanc with `datasets` in it; it knows TRIAGE at the port `move_to`."""
    more = {
        "DicomModalities": {"triage": ["TRIAGE", "127.0.0.1", move_to]},
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
    }
    orthanc = Orthanc(folder / "orthanc", more=more).start()
    try:
        for dataset in datasets:
            httpx.post(f"{orthanc.url}/instances", content=file_of(dataset)).raise_for_status()
        url = f"{orthanc.url}/dicom-web" if dicomweb else ""
        yield orthanc, remote(orthanc.dicom_port, dicomweb_url=url)
    finally:
        orthanc.kill()


@contextmanager
def without_c_get(pacs: RemoteSettings) -> Iterator[RemoteSettings]:
    """Stand in front of an archive, and refuse C-GET as many archives do; the rest goes on to it.

    It answers C-FIND and C-MOVE by asking the archive behind it.
    """
    entity = AE(ae_title="ARCHIVE")
    for uid in (FIND, MOVE):
        entity.add_supported_context(uid)

    def ask(sop_class: str) -> Any:
        asking = AE(ae_title="TRIAGE")
        asking.add_requested_context(sop_class)
        return asking.associate(pacs.host, pacs.port, ae_title=pacs.ae_title)

    def on_find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        association = ask(FIND)
        for status, identifier in association.send_c_find(event.identifier, FIND):
            if status.Status in (0xFF00, 0xFF01):
                yield status.Status, identifier
        association.release()

    def on_move(event: evt.Event) -> Iterator[Any]:
        # The archive behind sends the instances itself; here nothing is left to be sent.
        association = ask(MOVE)
        list(association.send_c_move(event.identifier, event.move_destination, MOVE))
        association.release()
        yield pacs.host, find_free_port()
        yield 0

    port = find_free_port()
    server = entity.start_server(
        ("127.0.0.1", port),
        block=False,
        evt_handlers=[(evt.EVT_C_FIND, on_find), (evt.EVT_C_MOVE, on_move)],
    )
    try:
        yield remote(port)
    finally:
        server.shutdown()  # type: ignore[union-attr]
