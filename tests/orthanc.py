"""A real archive for the tests: Orthanc with DICOM, REST and DICOMweb on free ports."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.tools import find_free_port, missing, require_tool, wait_until

_PLUGIN_FOLDERS = (
    "/usr/share/orthanc/plugins",
    "/usr/lib/orthanc",
    "/usr/local/share/orthanc/plugins",
)


class Orthanc:
    """An Orthanc whose storage, ports and log are its own; stopped and started at will.

    Attributes:
        ae_title: its AE title.
        dicom_port: where it takes associations, on 127.0.0.1.
        url: where REST answers; DICOMweb is below `/dicom-web`.
    """

    def __init__(
        self, folder: Path, *, ae_title: str = "ARCHIVE", more: Mapping[str, Any] | None = None
    ) -> None:
        """Prepare an Orthanc in `folder`; `more` is added to its configuration.

        The ports are kept over restarts, so that what waits for the archive finds it again.
        """
        self.folder = folder
        self.ae_title = ae_title
        self.dicom_port = find_free_port()
        self.http_port = find_free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self._program = require_tool("Orthanc")
        # Kept, because a client reads all authorities of the system anew, for which none is asked.
        self._http = httpx.Client(base_url=self.url, timeout=30, verify=False)
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "orthanc.json").write_text(json.dumps(self._configuration() | dict(more or {})))

    def _configuration(self) -> dict[str, Any]:
        return {
            "Name": self.ae_title,
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "DicomAet": self.ae_title,
            "DicomPort": self.dicom_port,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowEcho": True,
            "UnknownSopClassAccepted": True,  # newer ones than its DCMTK knows, as label maps
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "HttpThreadsCount": 4,
            "StableAge": 1,
            "Plugins": [str(_dicomweb_plugin())],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }

    def start(self) -> Orthanc:
        """Start it and return once it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, str(self.folder / "orthanc.json")],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        wait_until(self._answers, "Orthanc answers", timeout_s=60)
        return self

    def stop(self) -> None:
        """Stop it and return once it is gone; starting it again finds what it has stored."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=20)
        self._process = None

    def kill(self) -> None:
        """End it at once, as a power cut would; `stop` takes seconds."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=20)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"Orthanc ended: {(self.folder / 'log').read_text()[-2000:]}")
        try:
            return self._http.get("/system").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def get(self, path: str) -> Any:
        """Return the JSON answer to GET `path`, REST or DICOMweb."""
        answer = self._http.get(path, headers={"Accept": "application/json"})
        return answer.raise_for_status().json()

    def sop_instance_uids(self) -> list[str]:
        """Return the SOP Instance UIDs of all that it has stored, in order of arrival."""
        found = self.get("/instances?expand")
        found.sort(key=lambda instance: instance["IndexInSeries"] or 0)
        order = {change["ID"]: change["Seq"] for change in self._new_instances()}
        found.sort(key=lambda instance: order[instance["ID"]])
        return [str(instance["MainDicomTags"]["SOPInstanceUID"]) for instance in found]

    def _new_instances(self) -> list[dict[str, Any]]:
        changes = self.get("/changes?limit=10000")["Changes"]
        return [change for change in changes if change["ChangeType"] == "NewInstance"]

    def file_of(self, sop_instance_uid: str) -> bytes:
        """Return the stored instance as a DICOM file."""
        [identity] = self._identities_of(sop_instance_uid)
        return self._http.get(f"/instances/{identity}/file").raise_for_status().content

    def forget(self, sop_instance_uid: str) -> None:
        """Delete the instance, if it is stored."""
        for identity in self._identities_of(sop_instance_uid):
            self._http.delete(f"/instances/{identity}").raise_for_status()

    def _identities_of(self, sop_instance_uid: str) -> list[str]:
        looked_up = self._http.post("/tools/lookup", content=sop_instance_uid).raise_for_status()
        return [found["ID"] for found in looked_up.json() if found["Type"] == "Instance"]


def _dicomweb_plugin() -> Path:
    for folder in _PLUGIN_FOLDERS:
        for file in sorted(Path(folder).glob("libOrthancDicomWeb.so*")):
            return file
    missing("Orthanc's DICOMweb plugin is not installed")
    raise AssertionError
