"""Bundles in the layouts of the MONAI Model Zoo, registered as they are and run to findings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.tiny_model import write_tiny_model
from tests.models import bundles
from tests.models.test_runners import turned_head
from tests.models.tiny import (
    axial_series,
    head_with_lesion,
    slice_dataset,
    write_all,
    write_manifest,
)
from triage.models.engine import analyse
from triage.models.host import ModelHosts
from triage.models.interpret import Interpretation, interpret_image, interpret_volume
from triage.models.packages import ModelPackage, PackageError, load_package
from triage.models.predictions import RunnerError
from triage.models.previews import write_previews
from triage.models.radiograph import load_radiograph, model_input
from triage.models.runners import load_runner
from triage.models.tensors import ModelImage, ModelInput
from triage.models.volume import Volume, load_volume


@pytest.fixture(autouse=True)
def _no_code_of_other_bundles() -> Iterator[None]:
    """Each host runs one bundle; here several share a process, and all call their code scripts."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in [n for n in sys.modules if n.partition(".")[0] == "scripts"]:
        del sys.modules[name]


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return load_volume(write_all(axial_series(head_with_lesion()[0]), tmp_path / "series"))


def read(package: ModelPackage, volume: Volume, **others: ModelImage) -> Interpretation:
    output = load_runner(package, "cpu").run(ModelInput(volume.values, volume.affine, others))
    return interpret_volume(output, volume, package.manifest)


@pytest.mark.parametrize(
    "layout", [bundles.spleen_layout, bundles.template_layout, bundles.scripted_layout]
)
def test_lesion_comes_back_on_its_voxels(
    layout: Callable[[Path], ModelPackage], volume: Volume, tmp_path: Path
) -> None:
    said = read(layout(tmp_path / "package"), volume)
    _, lesion = head_with_lesion()
    assert said.segmentation is not None
    np.testing.assert_array_equal(said.segmentation == 1, lesion)
    assert said.findings[0].present


def test_the_model_of_the_benchmarks_runs(volume: Volume, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    write_tiny_model(tmp_path, marks)
    package = load_package(tmp_path / "tiny" / "1.0.0")
    load_runner(package, "cpu").run(ModelInput(volume.values, volume.affine, {}))
    assert len(marks.read_text().splitlines()) == 1


def test_images_are_stacked_as_channels_on_the_grid_of_the_first(
    volume: Volume, tmp_path: Path
) -> None:
    package = bundles.brats_layout(tmp_path / "package")
    _, lesion = head_with_lesion()
    dark = ModelImage(np.zeros_like(volume.values), volume.affine)
    # The image that decides lies the other way round, on a grid of its own.
    flipped = volume.affine @ np.diag([1.0, 1.0, -1.0, 1.0])
    flipped[:3, 3] += (len(lesion) - 1) * volume.affine[:3, 2]
    bright = ModelImage(np.where(lesion, 500, 0).astype(np.float32)[::-1].copy(), flipped)
    said = read(package, volume, t1c=dark, t2=dark, flair=bright)
    assert said.segmentation is not None
    np.testing.assert_array_equal(said.segmentation == 4, lesion)


def test_classifier_keeps_its_confidence(tmp_path: Path) -> None:
    package = bundles.classification_layout(tmp_path / "package")
    pixels = np.zeros((64, 64), np.int16)
    pixels[:, :32] = 120
    image = slice_dataset(pixels, (0, 0, 0), 1, BitsStored=8, HighBit=7, PixelRepresentation=0)
    radiograph = load_radiograph(write_all([image], tmp_path / "in"), package.manifest.accepts)
    values = model_input(radiograph, package.manifest.runner.input)  # type: ignore[arg-type]
    output = load_runner(package, "cpu").run(ModelInput(values))
    (finding,) = interpret_image(output, radiograph, package.manifest).findings
    # The halves are 120 and 0 of 255, the network scales by 0.1, and softmax does the rest.
    assert finding.confidence == pytest.approx(1 / (1 + np.exp(-12)), abs=1e-4)
    assert finding.key_image_uids == (radiograph.instance.sop_instance_uid,)


@pytest.mark.parametrize("turned", [False, True])
def test_detected_box_lies_around_the_lesion(tmp_path: Path, *, turned: bool) -> None:
    package = bundles.detection_layout(tmp_path / "package")
    angles = (0.4, -0.3, 0.2) if turned else (0.0, 0.0, 0.0)
    _, lesion = turned_head(angles, 0.0, tmp_path / "series")
    files = [(p.name, p) for p in (tmp_path / "series").iterdir()]
    volume = load_volume(files)
    (finding,) = read(package, volume).findings
    (box,) = finding.boxes
    assert finding.confidence == pytest.approx(0.9)
    indices = np.argwhere(lesion)
    drawn = volume.sop_instance_uids.index(box.sop_instance_uid)
    assert indices[:, 0].min() <= drawn <= indices[:, 0].max()
    expected = np.array([*indices[:, :0:-1].min(axis=0), *indices[:, :0:-1].max(axis=0)]) + 0.5
    found = np.array([box.left, box.top, box.right, box.bottom])
    if not turned:
        np.testing.assert_allclose(found, expected, atol=1e-3)
    assert (found[:2] <= expected[:2] + 1e-3).all()
    assert (found[2:] >= expected[2:] - 1e-3).all()


async def test_detector_goes_the_whole_way_to_pictures(hosts: ModelHosts, tmp_path: Path) -> None:
    """Through a host of its own, which imports the bundle's code, on slices at uneven distances."""
    package = bundles.detection_layout(tmp_path / "package")
    values, lesion = head_with_lesion()
    series = axial_series(values, depths_mm=[0, 5, 10, 16, 21, 26])
    analysis = await analyse(hosts, package, write_all(series, tmp_path / "series"))
    (finding,) = analysis.findings
    (box,) = finding.boxes
    slices = np.flatnonzero(lesion.any(axis=(1, 2)))
    assert analysis.source_sop_instance_uids.index(box.sop_instance_uid) in slices
    (path,) = write_previews(analysis, package.manifest, tmp_path / "out", window=(40.0, 80.0))
    with Image.open(path) as picture:
        colours = np.asarray(picture, np.int64)
    assert ((colours[..., 0] - colours[..., 2]) > 200).any()  # the frame is there


def test_override_of_a_key_that_is_not_there_is_refused(tmp_path: Path) -> None:
    package = bundles.brats_layout(tmp_path)
    content = package.manifest.model_dump(mode="json")
    content["runner"]["overrides"] = {"inferer#roi": [16, 16, 16]}
    with pytest.raises(RunnerError, match=r"inference\.json has no inferer#roi; correct its path"):
        load_runner(write_manifest(tmp_path, content), "cpu")


def test_bundle_without_a_configuration_is_refused(tmp_path: Path) -> None:
    bundles.template_layout(tmp_path)
    (tmp_path / "configs" / "inference.yaml").unlink()
    with pytest.raises(PackageError, match=r"configs/inference\.json or configs/inference\.yaml"):
        load_package(tmp_path)


def test_network_that_this_monai_cannot_make_names_the_version_it_is_for(tmp_path: Path) -> None:
    package = bundles.template_layout(tmp_path)
    config = tmp_path / "configs" / "inference.yaml"
    config.write_text(config.read_text().replace("out_channels", "exit_channels"))
    (tmp_path / "configs" / "metadata.json").write_text('{"monai_version": "0.9.0"}')
    with pytest.raises(RunnerError, match=r"published for 0\.9\.0: TypeError"):
        load_runner(load_package(package.path), "cpu")
