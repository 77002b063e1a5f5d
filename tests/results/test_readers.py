"""Every kind of object from every kind of source, as programs of others read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.orthanc import Orthanc
from tests.results.modalities import SOURCES, Made, analysis_of
from tests.results.scenes import run_tool
from tests.results.test_way_back import read_nifti
from triage.core.runs import DeliveryKind
from triage.results.delivery import dicom, stow
from triage.settings import DicomDestination, StowDestination
from triage.store.files import InstanceFiles
from triage.store.outbox import DueDelivery

GRAYSCALE_STATE = "1.2.840.10008.5.1.4.1.1.11.1"


@pytest.mark.parametrize("name", SOURCES)
def test_a_study_with_all_kinds_is_consistent(name: str, made: Callable[[str], Made]) -> None:
    one = made(name)
    own = run_tool("dcentvfy", *one.images.files).errors()
    said = run_tool("dcentvfy", *one.images.files, *one.files.values()).errors()
    # A structure set names the study as if it were an instance, as its module has it (PS3.3
    # C.8.8.5, RT Referenced Study Sequence); dcentvfy looks for an instance of that name.
    as_instance = f"was referenced - {one.images.header.StudyInstanceUID} "
    assert [line for line in said if line not in own and as_instance not in line] == []


@pytest.mark.parametrize("name", SOURCES)
def test_dcmtk_reads_report_and_key_objects(name: str, made: Callable[[str], Made]) -> None:
    files = made(name).files
    for role, title in (("sr", "Imaging Measurement Report"), ("key-objects", "Of Interest")):
        said = run_tool("dsrdump", "+Pc", files[role])
        assert said.errors() == [], role
        assert any(title in line for line in said.lines), role
    tree = "\n".join(run_tool("dsrdump", files["sr"]).lines)
    assert "Intracranial hemorrhage" in tree


@pytest.mark.parametrize("name", SOURCES)
def test_dcmqi_reads_measurements_and_outline(
    name: str, made: Callable[[str], Made], tmp_path: Path
) -> None:
    one = made(name)
    read = tmp_path / "read.json"
    said = run_tool("tid1500reader", "--inputDICOM", one.files["sr"], "--outputMetadata", read)
    assert said.errors() == []
    found = [group.get("Finding", {}) for group in json.loads(read.read_text())["Measurements"]]
    assert "1386000" in [code.get("CodeValue") for code in found]
    if not one.images.has_place:
        return  # ITK has no image without directions in the patient, and says so
    arguments = ("--inputDICOM", one.files["seg"], "--outputDirectory", tmp_path, "-t", "nii")
    assert run_tool("segimage2itkimage", *arguments).errors() == []
    voxels, _ = read_nifti(tmp_path / "1.nii.gz")
    outlined = np.equal(analysis_of(one.images).segmentation, 3)
    assert np.count_nonzero(voxels) == np.count_nonzero(outlined)


@pytest.mark.parametrize("name", SOURCES)
def test_dcmtk_shows_images_through_their_presentation_state(
    name: str, made: Callable[[str], Made], tmp_path: Path
) -> None:
    one = made(name)
    state = pydicom.dcmread(one.files["presentation-state"])
    if state.SOPClassUID != GRAYSCALE_STATE:
        # DCMTK renders no color presentation state, but reads and prints it.
        assert run_tool("dcmdump", one.files["presentation-state"]).errors() == []
        return
    named = {
        str(image.ReferencedSOPInstanceUID)
        for series in state.ReferencedSeriesSequence
        for image in series.ReferencedImageSequence
    }
    images = {
        str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID): file
        for file in one.images.files
    }
    for uid in named:
        picture = tmp_path / "shown.pgm"
        said = run_tool("dcmp2pgm", "-p", one.files["presentation-state"], images[uid], picture)
        assert said.errors() == []
        assert picture.stat().st_size > one.images.header.Rows * one.images.header.Columns


@pytest.mark.parametrize("name", SOURCES)
def test_orthanc_takes_every_kind_by_c_store_and_by_stow_rs(
    name: str, made: Callable[[str], Made], running_orthanc: Orthanc, tmp_path: Path
) -> None:
    one = made(name)
    by_c_store = DicomDestination(
        name="archive",
        ae_title=running_orthanc.ae_title,
        host="127.0.0.1",
        port=running_orthanc.dicom_port,
    )
    by_stow = StowDestination(name="web", kind="stow", url=f"{running_orthanc.url}/dicom-web")
    files = InstanceFiles(tmp_path)
    for each in [_due(role, file) for role, file in one.files.items()]:
        running_orthanc.forget(each.sop_instance_uid)  # some sources are of the same study
        dicom.store(each, by_c_store, files, calling_ae_title="TRIAGE")
        _assert_is_as_sent(running_orthanc, each)
        running_orthanc.forget(each.sop_instance_uid)
        stow.store(each, by_stow, files)
        _assert_is_as_sent(running_orthanc, each)


def _due(role: str, file: Path) -> DueDelivery:
    header = pydicom.dcmread(file, stop_before_pixels=True)
    return DueDelivery(
        delivery_id=1,
        kind=DeliveryKind.RESULT,
        subject=f"object:{header.SOPInstanceUID}",
        destination="archive",
        attempt=1,
        study_id=1,
        run_id=1,
        is_object=True,
        role=role,
        path=str(file),
        sop_class_uid=str(header.SOPClassUID),
        sop_instance_uid=str(header.SOPInstanceUID),
    )


def _assert_is_as_sent(orthanc: Orthanc, sent: DueDelivery) -> None:
    stored = pydicom.dcmread(BytesIO(orthanc.file_of(sent.sop_instance_uid)))
    assert stored == pydicom.dcmread(sent.path), sent.role
