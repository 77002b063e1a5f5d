"""Every kind of object, made of every kind of image, as outside programs judge it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.results.detections import (
    KINDS,
    PACKAGED,
    SHARED,
    errors_beyond,
    image_file,
    saved_detection,
)
from tests.results.scenes import (
    build,
    head_analysis,
    head_manifest,
    multi_frame_analysis,
    save,
    write_chest,
)

ALL = ["seg", "sr", "heat-map", "key-objects", "presentation-state", "pdf"]


@pytest.mark.parametrize("name", [*PACKAGED, *SHARED])
def test_objects_of_any_image_are_valid(name: str, shared_data: Path, tmp_path: Path) -> None:
    source = image_file(name, shared_data)
    saved = saved_detection(source, tmp_path)
    assert set(saved) == set(KINDS)
    for role, file in saved.items():
        assert errors_beyond(source, file) == [], role


@pytest.mark.parametrize("name", ["CT", "US in color"])
def test_a_negative_result_leaves_a_report_and_no_picture(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    source = image_file(name, shared_data)
    saved = saved_detection(source, tmp_path, is_present=False)
    assert set(saved) == {"sr", "pdf"}
    for file in saved.values():
        assert errors_beyond(source, file) == []


def test_objects_of_a_mammogram_are_valid(tmp_path: Path) -> None:
    source = write_chest(
        tmp_path / "in",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.1.2",
        Modality="MG",
        BodyPartExamined="BREAST",
        ImageLaterality="L",
    )
    for role, file in saved_detection(source, tmp_path / "out").items():
        assert errors_beyond(source, file) == [], role


def test_objects_of_a_volume_are_valid(head_files: tuple[Path, ...], tmp_path: Path) -> None:
    built = build(head_analysis(head_files), head_manifest(results={"objects": ALL}))
    # What is referred to goes before what refers to it.
    assert [each.role for each in built] == [
        "seg",
        "sr",
        "heat-map",
        "presentation-state",
        "pdf",
        "key-objects",
    ]
    for role, file in save(built, tmp_path).items():
        assert errors_beyond(head_files[0], file) == [], role


def test_objects_of_a_multi_frame_image_are_valid(multi_frame_file: Path, tmp_path: Path) -> None:
    analysis = multi_frame_analysis(multi_frame_file)
    built = build(analysis, head_manifest(results={"objects": ALL}))
    assert len(built) == len(ALL)
    for role, file in save(built, tmp_path).items():
        assert errors_beyond(multi_frame_file, file) == [], role


def test_the_same_analysis_gives_the_same_bytes(shared_data: Path, tmp_path: Path) -> None:
    source = image_file("CT", shared_data)
    first, second = (saved_detection(source, tmp_path / name) for name in ("one", "two"))
    assert {r: f.read_bytes() for r, f in first.items()} == {
        r: f.read_bytes() for r, f in second.items()
    }
