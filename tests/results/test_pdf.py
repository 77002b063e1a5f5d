"""The report as a PDF, read back by Poppler."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from tests.results.detections import saved_detection
from tests.results.scenes import NOTICE, build, head_analysis, head_manifest, write_chest
from tests.tools import require_tool

ONLY = {"objects": ["pdf"]}


def _pdf(file: Path, folder: Path) -> Path:
    dataset = pydicom.dcmread(file)
    document = dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength]
    assert document.rstrip().endswith(b"%%EOF")
    (folder / "report.pdf").write_bytes(document)
    return folder / "report.pdf"


def _text(pdf: Path) -> str:
    done = subprocess.run(
        [require_tool("pdftotext"), "-layout", pdf, "-"], capture_output=True, check=True
    )
    return done.stdout.decode()


def _page(pdf: Path) -> Image.Image:
    subprocess.run(
        [require_tool("pdftoppm"), "-r", "60", "-png", pdf, pdf.with_suffix("")], check=True
    )
    (page,) = sorted(pdf.parent.glob("report-*.png"))
    return Image.open(page).convert("RGB")


def test_it_says_what_was_found_and_of_whom(tmp_path: Path) -> None:
    source = write_chest(tmp_path / "in")
    pdf = _pdf(saved_detection(source, tmp_path, results=ONLY)["pdf"], tmp_path)
    text = _text(pdf)
    for said in (
        "AI result, not for primary diagnosis",
        NOTICE,
        "Muster, Anna",
        "P-17",
        "1950-02-01",
        "A-99",
        "2026-03-01 08:15",
        "chest-xray 2.1.0",
        "2 findings",
    ):
        assert said in text
    lines = {line.split("  ")[0].strip(): line for line in text.splitlines()}
    assert "Present" in lines["Pneumothorax"]
    assert "0.97" in lines["Pneumothorax"]
    assert "STAT" in lines["Pneumothorax"]
    assert "Not found" in lines["Intracranial hemorrhage"]


def test_it_shows_the_key_images_with_the_outline(
    head_files: tuple[Path, ...], tmp_path: Path
) -> None:
    (built,) = build(head_analysis(head_files), head_manifest(results=ONLY))
    built.dataset.save_as(tmp_path / "pdf.dcm", enforce_file_format=True)
    page = np.asarray(_page(_pdf(tmp_path / "pdf.dcm", tmp_path)), dtype=int)
    red = (page[..., 0] > 150) & (page[..., 1] < 110) & (page[..., 2] < 110)
    picture = red[int(0.3 * len(page)) : int(0.6 * len(page))]
    left, right = np.array_split(picture, 2, axis=1)
    assert left.sum() > 20
    assert right.sum() > 20


def test_a_negative_result_is_a_report_too(tmp_path: Path) -> None:
    source = write_chest(tmp_path / "in")
    saved = saved_detection(source, tmp_path, is_present=False, results=ONLY)
    text = _text(_pdf(saved["pdf"], tmp_path))
    assert "Nothing found" in text
    assert text.count("Not found") == 3
    assert "Present" not in text


@pytest.mark.parametrize(
    "name",
    ["Müller^Jörg", "Yamada^Tarou=山田^太郎", "Hong^Gildong=洪^吉洞=홍^길동", "Люксембург^Роза"],
)
def test_names_of_any_script_can_be_read(name: str, tmp_path: Path) -> None:
    source = write_chest(tmp_path / "in", SpecificCharacterSet="ISO_IR 192", PatientName=name)
    text = _text(_pdf(saved_detection(source, tmp_path, results=ONLY)["pdf"], tmp_path))
    for part in name.replace("^", "=").split("="):
        assert part in text


def test_it_is_a_document_of_the_study(tmp_path: Path) -> None:
    source = write_chest(tmp_path / "in")
    dataset = pydicom.dcmread(saved_detection(source, tmp_path, results=ONLY)["pdf"])
    header = pydicom.dcmread(source)
    assert dataset.StudyInstanceUID == header.StudyInstanceUID
    assert dataset.PatientName == header.PatientName
    assert dataset.BurnedInAnnotation == "YES"
    assert dataset.SourceInstanceSequence[0].ReferencedSOPInstanceUID == header.SOPInstanceUID
    assert dataset.MIMETypeOfEncapsulatedDocument == "application/pdf"
