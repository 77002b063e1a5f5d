"""Deliveries into a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.results.outgoing import due_object, outgoing
from tests.results.scenes import write_chest
from tests.tools import ManualClock
from triage.core.errors import TriageError
from triage.results.delivery.folder import reach, store, unfinished_at
from triage.results.errors import DeliveryError
from triage.settings import FolderDestination, load_settings
from triage.store.database import Database
from triage.store.files import InstanceFiles


def folder(path: Path, **more: Any) -> FolderDestination:
    path.mkdir(exist_ok=True)
    return FolderDestination(name="share", kind="folder", path=path, **more)


def written(root: Path) -> list[str]:
    """Return the files below a folder, hidden ones too."""
    return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())


def test_objects_arrive_whole_under_the_names_of_the_template(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    template = (
        "{patient_id}/{study_date}-{accession_number}/{modality}-{role}-{sop_instance_uid}.dcm"
    )
    share = folder(tmp_path / "share", template=template)
    out = outgoing(sqlite_database, tmp_path, clock, share)
    out.deliver_all()
    assert out.states() == ["delivered", "delivered"]
    sr, heat_map = out.uids
    assert written(tmp_path / "share") == [
        f"P-17/20260301-A-99/OT-heat-map-{heat_map}.dcm",
        f"P-17/20260301-A-99/SR-sr-{sr}.dcm",
    ]
    copied = pydicom.dcmread(tmp_path / "share" / f"P-17/20260301-A-99/SR-sr-{sr}.dcm")
    assert copied.SOPInstanceUID == sr


def test_what_is_there_already_is_left_alone(files: InstanceFiles, tmp_path: Path) -> None:
    due = due_object(files, write_chest(tmp_path / "in"))
    share = folder(tmp_path / "share")
    store(due, share, files)
    [name] = written(share.path)
    os.utime(share.path / name, (1, 1))
    store(due, share, files)
    assert written(share.path) == [name]
    assert (share.path / name).stat().st_mtime == 1
    (share.path / name).write_bytes(b"half of an obj")
    store(due, share, files)
    assert (share.path / name).read_bytes() == files.absolute(due.path).read_bytes()


def test_what_a_killed_worker_left_goes_with_the_next_attempt(
    files: InstanceFiles, tmp_path: Path
) -> None:
    due = due_object(files, write_chest(tmp_path / "in"), attempt=2)
    share = folder(tmp_path / "share", template="{sop_instance_uid}.dcm")
    target = share.path / f"{due.sop_instance_uid}.dcm"
    for attempt in (1, 2):
        unfinished_at(target, attempt).write_bytes(b"half of an obj")
    store(due, share, files)
    assert written(share.path) == [target.name]


@pytest.mark.parametrize(
    ("patient_id", "name"),
    [
        ("../../etc", "_.._etc"),
        ("/etc/passwd", "_etc_passwd"),
        ("a:b*c?", "a_b_c_"),
        ("..", "none"),
        ("", "none"),
        ("Ü" * 64, "Ü" * 64),
        ("-", "-"),
    ],
)
def test_no_value_leads_out_of_the_folder(
    files: InstanceFiles, tmp_path: Path, patient_id: str, name: str
) -> None:
    file = write_chest(tmp_path / "in", PatientID=patient_id, SpecificCharacterSet="ISO_IR 192")
    due = due_object(files, file)
    share = folder(tmp_path / "share", template="{patient_id}/{sop_instance_uid}.dcm")
    store(due, share, files)
    assert written(share.path) == [f"{name}/{due.sop_instance_uid}.dcm"]


def test_a_link_that_leads_out_of_the_folder_is_not_followed(
    files: InstanceFiles, tmp_path: Path
) -> None:
    due = due_object(files, write_chest(tmp_path / "in"))
    share = folder(tmp_path / "share", template="{patient_id}/{sop_instance_uid}.dcm")
    outside = tmp_path / "outside"
    outside.mkdir()
    (share.path / "P-17").symlink_to(outside)
    with pytest.raises(DeliveryError, match="leads out of the folder"):
        store(due, share, files)
    assert written(outside) == []


def test_a_share_that_is_not_mounted_is_waited_for(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    share = folder(tmp_path / "share")
    out = outgoing(sqlite_database, tmp_path, clock, share)
    share.path.rmdir()
    out.deliver()
    assert out.states()[0] == "waiting"
    assert f"the folder {share.path} is not there; make it, or mount the share" in out.last_error()
    share.path.mkdir()
    clock.advance(2)
    out.deliver_all()
    assert out.states() == ["delivered", "delivered"]


def test_a_file_in_the_way_is_said_and_waited_for(files: InstanceFiles, tmp_path: Path) -> None:
    due = due_object(files, write_chest(tmp_path / "in"))
    share = folder(tmp_path / "share", template="{patient_id}/{sop_instance_uid}.dcm")
    (share.path / "P-17").write_text("in the way")
    with pytest.raises(DeliveryError, match="cannot be written") as raised:
        store(due, share, files)
    assert not raised.value.is_permanent


def test_an_object_without_its_file_is_dead(files: InstanceFiles, tmp_path: Path) -> None:
    due = due_object(files, write_chest(tmp_path / "in"))
    files.absolute(due.path).unlink()
    with pytest.raises(DeliveryError, match="no longer in the store") as raised:
        store(due, folder(tmp_path / "share"), files)
    assert raised.value.is_permanent


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{patient_id}.dcm", "must hold {sop_instance_uid}"),
        ("{name}/{sop_instance_uid}", "only these may stand in braces"),
        ("{sop_instance_uid!r}", "only these may stand in braces"),
        ("{sop_instance_uid:>9}", "only these may stand in braces"),
        ("{}/{sop_instance_uid}", "must hold {sop_instance_uid}"),
        ("/tmp/{sop_instance_uid}", "must lead to a file inside the folder"),
        ("../{sop_instance_uid}", "must lead to a file inside the folder"),
        ("{sop_instance_uid}/", "must lead to a file inside the folder"),
        ("{sop_instance_uid", "the braces do not match"),
    ],
)
def test_a_wrong_template_is_refused_before_anything_is_sent(template: str, words: str) -> None:
    destination = {"name": "share", "kind": "folder", "path": "/x", "template": template}
    with pytest.raises(TriageError) as raised:
        load_settings(destinations=[destination])
    assert str(raised.value).startswith("destinations.0.template: ")
    assert words in str(raised.value)


def test_doctor_tries_to_write(tmp_path: Path) -> None:
    share = folder(tmp_path / "share")
    assert reach(share) == f"{share.path} can be written"
    assert written(share.path) == []
    share.path.rmdir()
    with pytest.raises(DeliveryError, match="is not there"):
        reach(share)
