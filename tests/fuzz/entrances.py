"""The ways into Triage, each with what must hold whatever comes in."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from fastapi.testclient import TestClient
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
)
from starlette.routing import BaseRoute, Match

from tests.fuzz.corpus import data_sets, deflated_data_set
from tests.hostile.conftest import SOP_INSTANCE, Target
from tests.hostile.data_sets import encoded, victim
from tests.hostile.wire import (
    ABORT,
    ASSOCIATE_AC,
    COMMAND,
    DATA,
    ECHO_CONTEXT,
    LAST,
    P_DATA,
    STORE_CONTEXT,
    RawPeer,
    associate_rq,
    echo_command,
    p_data,
    pdu,
    store_command,
)
from triage.core.analysis import InputRefusedError
from triage.core.manifest import InputSpec
from triage.models.radiograph import load_radiograph
from triage.models.volume import load_volume
from triage.receiver.headers import is_valid_uid, parse_header
from triage.receiver.part10 import file_header
from triage.receiver.refusals import RefusedInstanceError
from triage.settings import Settings
from triage.store.database import Database
from triage.store.tables import InstanceRow
from triage.web.app import create_app
from triage.web.pixels import PixelError, read_frame

_PATIENCE_S = 0.15
_STOW_PATH = "/dicom-web/studies"


class Entrance(Protocol):
    """A way in."""

    name: str

    def originals(self) -> Sequence[bytes]:
        """Return the honest input."""
        ...

    def feed(self, content: bytes) -> str:
        """Let `content` in and return the outcome in a word; raise where a promise is broken."""
        ...

    def close(self) -> None:
        """Look at the whole once more, and let go of what is held."""
        ...


class Parser:
    """`parse_header`: a header, or a refusal."""

    name = "data-set parser"

    def __init__(self) -> None:
        deflated = (DeflatedExplicitVRLittleEndian, deflated_data_set())
        encodings = [*data_sets().items(), deflated]
        self._syntaxes = [syntax for syntax, _ in encodings]
        # The first byte says which encoding is announced; mutated, it is another one.
        self._originals = [bytes([n]) + content for n, (_, content) in enumerate(encodings)]

    def originals(self) -> Sequence[bytes]:
        """Return a data set in each encoding, behind the number of that encoding."""
        return self._originals

    def feed(self, content: bytes) -> str:
        """Parse; a header that comes out must be fit for the index."""
        number, dataset = content[:1] or b"\x00", content[1:]
        try:
            header = parse_header(dataset, self._syntaxes[number[0] % len(self._syntaxes)])
        except RefusedInstanceError as refusal:
            return f"refused 0x{refusal.status:04X}"
        assert is_valid_uid(header.sop_instance_uid)
        assert is_valid_uid(header.study_instance_uid)
        for value in header.values.values():
            text = str(value)
            assert "\x00" not in text  # PostgreSQL takes it in no text
            text.encode()
        return "parsed"

    def close(self) -> None:
        """Nothing is held."""


class Readers:
    """A stored file, as models and the viewer read it: pixels, or a refusal in words.

    For a model it is the second slice of a volume, and a single image.
    """

    name = "stored file"

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="triage-fuzz-")
        self._file = Path(self._folder.name) / "one.dcm"
        self._first = Path(self._folder.name) / "first.dcm"
        self._meta = file_header(
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid=SOP_INSTANCE,
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
        self._first.write_bytes(self._meta + encoded(victim(number=0)))

    def originals(self) -> Sequence[bytes]:
        """Return a data set as it lies in a file, behind the header that Triage writes."""
        return [data_sets()[ExplicitVRLittleEndian]]

    def feed(self, content: bytes) -> str:
        """Read it in each way."""
        self._file.write_bytes(self._meta + content)
        source, first = (SOP_INSTANCE, self._file), ("first", self._first)
        ways: dict[str, Callable[[], object]] = {
            "slice": lambda: load_volume([first, source]),
            "image": lambda: load_radiograph([source], InputSpec(modalities=("CT",))),
            "viewer": lambda: read_frame(self._file, 1),
        }
        taken = [name for name, read in ways.items() if _is_taken(read)]
        return f"read by {' and '.join(taken) or 'nobody'}"

    def close(self) -> None:
        """Remove the file."""
        self._folder.cleanup()


def _is_taken(read: Callable[[], object]) -> bool:
    try:
        read()
    except (InputRefusedError, PixelError):
        return False
    return True


class Storage:
    """C-STORE over a real association: a status, and with 0x0000 a row and a whole file."""

    name = "C-STORE"

    def __init__(self, target: Target) -> None:
        self._target = target
        self._peer: RawPeer | None = None
        self._fed = 0

    def originals(self) -> Sequence[bytes]:
        """Return the data set that the association's presentation context is for."""
        return [data_sets()[ExplicitVRLittleEndian]]

    def feed(self, content: bytes) -> str:
        """Send one message, in fragments of different lengths."""
        status = self._answer_to(content)
        if status is None:
            return "aborted"
        if status == 0:
            self._check_is_stored(content)
        return f"status 0x{status:04X}"

    def _answer_to(self, content: bytes) -> int | None:
        peer = self._associated()
        self._fed += 1
        pieces = [p_data(STORE_CONTEXT, COMMAND | LAST, store_command(SOP_INSTANCE))]
        middle = len(content) // (1 + self._fed % 7)
        pieces += [p_data(STORE_CONTEXT, DATA, content[:middle])] if middle else []
        pieces.append(p_data(STORE_CONTEXT, DATA | LAST, content[middle:]))
        peer.send(b"".join(pieces))
        answer = peer.read()
        if answer is None or answer.kind == ABORT:
            self._release()
            return None
        assert answer.kind == P_DATA
        assert answer.status is not None
        return answer.status

    def _check_is_stored(self, content: bytes) -> None:
        rows: list[InstanceRow] = self._target.rows_of(SOP_INSTANCE)
        files = [self._target.files.absolute(row.path).read_bytes() for row in rows]
        assert any(file.endswith(content) for file in files), "answered with success, and not kept"
        for row, file in zip(rows, files, strict=True):
            assert hashlib.sha256(file).hexdigest() == row.sha256

    def _associated(self) -> RawPeer:
        if self._peer is None:
            self._peer = self._target.peer()
            self._peer.associate()
        return self._peer

    def _release(self) -> None:
        if self._peer is not None:
            self._peer.__exit__(None, None, None)
            self._peer = None

    def close(self) -> None:
        """The receiver lives, and its folder holds what the index says."""
        self._release()
        check_lives(self._target)


class Stream:
    """A raw connection: whatever comes, it ends, and the receiver goes on."""

    name = "PDU stream"

    def __init__(self, target: Target) -> None:
        self._target = target

    def originals(self) -> Sequence[bytes]:
        """Return what comes after an honest association request, and association requests.

        The first byte says whether there is one before: a peer has to wait for its answer.
        """
        content = data_sets()[ExplicitVRLittleEndian]
        store = p_data(STORE_CONTEXT, COMMAND | LAST, store_command(SOP_INSTANCE))
        store += p_data(STORE_CONTEXT, DATA, content[:200])
        store += p_data(STORE_CONTEXT, DATA | LAST, content[200:])
        echo = p_data(ECHO_CONTEXT, COMMAND | LAST, echo_command())
        release, abort = pdu(5, bytes(4)), pdu(ABORT, bytes(4))
        return [
            b"\x01" + echo + store + release,
            b"\x01" + store + echo + abort,
            b"\x01" + echo + echo + release,
            b"\x00" + associate_rq(),
        ]

    def feed(self, content: bytes) -> str:
        """Send it all, read what comes, and hang up where it waits for more."""
        with self._target.peer() as peer:
            if content[:1] == b"\x01":
                peer.associate()
            peer.send(content[1:])
            answers = peer.read_while_it_speaks(_PATIENCE_S)
            peer.end_of_sending()
            answers += peer.read_to_the_end()  # a TimeoutError is a connection that is held
        if not answers:
            return "closed"
        if any(answer.status == 0 for answer in answers):
            return "answered with success"
        names = {ABORT: "aborted", ASSOCIATE_AC: "associated", P_DATA: "answered with an error"}
        return names.get(answers[-1].kind, "rejected or released")

    def close(self) -> None:
        """The receiver lives, and its folder holds what the index says."""
        check_lives(self._target)


class NoSuchEntranceError(Exception):
    """This version of Triage does not have the entrance."""


class Stow:
    """STOW-RS: an answer that is no server error, and with 200 a row and a whole file."""

    name = "STOW-RS"

    def __init__(self, target: Target, database: Database) -> None:
        self._target = target
        settings = Settings(data_directory=target.folder / "data")
        app = create_app(settings, database, target.files)
        if not any(_takes_studies(route) for route in app.routes):
            raise NoSuchEntranceError(f"the pages have no POST {_STOW_PATH}")
        self._client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=True)
        self._client.__enter__()

    def originals(self) -> Sequence[bytes]:
        """Return a multipart body of two files."""
        content = data_sets()[ExplicitVRLittleEndian]
        meta = file_header(
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid=SOP_INSTANCE,
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
        part = b"--cut\r\nContent-Type: application/dicom\r\n\r\n" + meta + content + b"\r\n"
        return [part + b"--cut--\r\n", part * 2 + b"--cut--\r\n"]

    def feed(self, content: bytes) -> str:
        """Post it."""
        kind = 'multipart/related; type="application/dicom"; boundary=cut'
        answer = self._client.post(_STOW_PATH, content=content, headers={"Content-Type": kind})
        assert answer.status_code < 500, answer.text
        if answer.status_code in (200, 202):
            self._check_are_stored(answer.json())
        return f"status {answer.status_code}"

    def _check_are_stored(self, answer: dict[str, Any]) -> None:
        # Referenced SOP Sequence and its Referenced SOP Instance UID (DICOM PS3.18 I.2).
        for stored in answer["00081199"]["Value"]:
            (uid,) = stored["00081155"]["Value"]
            for row in self._target.rows_of(uid):
                content = self._target.files.absolute(row.path).read_bytes()
                assert hashlib.sha256(content).hexdigest() == row.sha256
            assert self._target.rows_of(uid), "answered with success, and not kept"

    def close(self) -> None:
        """The folder holds what the index says."""
        self._client.__exit__(None, None, None)
        self._target.check_store()


def _takes_studies(route: BaseRoute) -> bool:
    scope = {"type": "http", "method": "POST", "path": _STOW_PATH, "root_path": "", "headers": []}
    return route.matches(scope)[0] is Match.FULL


def check_lives(target: Target) -> None:
    """Fail unless the receiver answers and its folder holds the files of the index and no other."""
    assert target.answers_echo()
    target.check_store()
