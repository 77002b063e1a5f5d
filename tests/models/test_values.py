"""From stored values to values: every encoding, every table, every unit, or a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import compress
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from tests.models.images import item, written
from tests.models.test_radiograph import ACCEPTS
from tests.models.tiny import axial_series, slice_dataset, write_all
from triage.core.analysis import InputRefusedError
from triage.core.manifest import ImageInput, VolumeInput
from triage.models.radiograph import load_radiograph
from triage.models.sources import Frame, decode, read_instance
from triage.models.values import rescaled
from triage.models.volume import load_volume

# y * 37 + x * 11, modulo 4096, in 16 rows and 20 columns, as OpenJPH 0.26 encodes it.
HTJ2K_FRAME = bytes.fromhex(
    "ff4fff5100294000000000140000001000000000000000000000001400000010000000000000000000010f0101"
    "ff50000800020000000aff52000c00020001000504044001ff5c00132088909090909090909090909090888888"
    "ff64001700014f70656e4a50482056657220302e32362e33"
    "2eff90000a00000000008a0001ff93c00026f9fd05077400c00012806801877400c0001240001380fd277300a2"
    "8afa00823400c0001240001540f522730050a1a0fe000840775600c00015100005683084f0d7e00b7500a4241"
    "289f4e008462101ecb800c0002b200016a044444444efe0a7a7a7c2780048044110044110e4fe823d84207bf6"
    "1081ecbc00ffd9"
)


def pattern() -> NDArray[np.int16]:
    y, x = np.mgrid[:16, :20]
    return ((y * 37 + x * 11) % 4096).astype(np.int16)


def image(pixels: NDArray[np.int16] | None = None, **changes: Any) -> Dataset:
    return slice_dataset(pattern() if pixels is None else pixels, (0, 0, 0), 1, **changes)


def values_of(dataset: Dataset, folder: Path) -> NDArray[np.float32]:
    (source,) = written(dataset, folder)
    return rescaled(Frame(read_instance(source)))


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
)
def test_every_lossless_encoding_has_the_same_values(tmp_path: Path, syntax: str) -> None:
    signed = np.tile(pattern() - np.int16(2000), (2, 2))
    dataset = image(signed)
    if syntax in (RLELossless, JPEGLSLossless):
        compress(dataset, syntax)
    if syntax == JPEG2000Lossless:
        dataset.PixelData = encapsulate([encode_array(signed, bits_stored=16)])
        dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    np.testing.assert_array_equal(values_of(dataset, tmp_path), signed)


def test_big_endian_has_the_same_values(tmp_path: Path) -> None:
    dataset = image()
    dataset.PixelData = pattern().astype(">i2").tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    path = tmp_path / "a.dcm"
    dataset.save_as(path, implicit_vr=False, little_endian=False, enforce_file_format=True)
    frame = Frame(read_instance((str(dataset.SOPInstanceUID), path)))
    np.testing.assert_array_equal(rescaled(frame), pattern())


def test_high_throughput_jpeg_2000_has_the_same_values(tmp_path: Path) -> None:
    dataset = image(PixelRepresentation=0)
    dataset.PixelData = encapsulate([HTJ2K_FRAME])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = HTJ2KLossless
    np.testing.assert_array_equal(values_of(dataset, tmp_path), pattern())


def test_video_is_refused_in_words(tmp_path: Path) -> None:
    dataset = image()
    dataset.PixelData = encapsulate([b"\0\0\1\xb3" * 4])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    with pytest.raises(InputRefusedError, match=r"it is a video \(MPEG2 Main Profile"):
        values_of(dataset, tmp_path)


def test_overlays_in_the_high_bits_are_no_values(tmp_path: Path) -> None:
    dataset = image(pattern() | np.int16(0x5000), PixelRepresentation=0, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(values_of(dataset, tmp_path), pattern())


def test_values_below_other_bits_are_shifted_down_with_their_sign(tmp_path: Path) -> None:
    signed = pattern() % 2048 - 1024
    dataset = image(signed * 16 + 7, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(values_of(dataset, tmp_path), signed)


def test_high_bit_outside_the_pixel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRefusedError, match="its High Bit is 17, of 12 bits stored in 16"):
        values_of(image(BitsStored=12, HighBit=17), tmp_path)


def test_modality_table_is_looked_up(tmp_path: Path) -> None:
    table = item(
        LUTDescriptor=[4, 0, 16],
        ModalityLUTType="HU",
        LUTData=np.array([10, 20, 30, 40], "<u2").tobytes(),
    )
    dataset = image(pattern() % 4, PixelRepresentation=0, RescaleSlope=None, RescaleIntercept=None)
    dataset.ModalityLUTSequence = [table]
    np.testing.assert_array_equal(values_of(dataset, tmp_path), pattern() % 4 * 10 + 10)


def test_float_pixels_keep_their_values_and_padding_is_none(tmp_path: Path) -> None:
    floats = np.linspace(-1, 1, 320, dtype=np.float32).reshape(16, 20)
    floats[0, 0], floats[0, 1] = np.nan, 99.0
    dataset = image(RescaleSlope=None, RescaleIntercept=None, Modality="MR")
    for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        del dataset[keyword]
    dataset.BitsAllocated = 32
    dataset.FloatPixelData = floats.tobytes()
    dataset.FloatPixelPaddingValue = 99.0
    found = values_of(dataset, tmp_path)
    np.testing.assert_array_equal(found[1:], floats[1:])
    assert found[0, 0] == found[0, 1] == floats[0, 2]


def mapped(slope: float = 0.5, unit: str = "mm2/s") -> Dataset:
    return item(
        RealWorldValueSlope=slope,
        RealWorldValueIntercept=-3.0,
        RealWorldValueFirstValueMapped=0,
        RealWorldValueLastValueMapped=4095,
        MeasurementUnitsCodeSequence=[item(CodeValue=unit, CodingSchemeDesignator="UCUM")],
    )


def two_slices(**changes: Any) -> list[Dataset]:
    series = axial_series(np.stack([pattern(), pattern()]))
    for dataset in series:
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
    return series


def test_real_world_values_are_given_where_the_manifest_asks(tmp_path: Path) -> None:
    series = two_slices(RealWorldValueMappingSequence=[mapped(9, "ms"), mapped()])
    sources = write_all(series, tmp_path)
    wanted = VolumeInput(units="real-world", real_world_unit="mm2/s")
    np.testing.assert_allclose(load_volume(sources, wanted).values[1], pattern() * 0.5 - 3)
    other = VolumeInput(units="real-world", real_world_unit="Hz")
    with pytest.raises(InputRefusedError, match="states no Real World Value Mapping to Hz"):
        load_volume(sources, other)


def test_a_unit_without_real_world_values_is_no_manifest() -> None:
    with pytest.raises(ValueError, match="real_world_unit belong together"):
        VolumeInput(units="real-world")


def positron_series(**changes: Any) -> list[Dataset]:
    """Two hours of fluorine-18 after 370 MBq, in a patient of 70 kg."""
    injection = item(
        RadionuclideTotalDose="370000000",
        RadionuclideHalfLife="6586.2",
        RadiopharmaceuticalStartTime="100000",
    )
    values: dict[str, Any] = {
        "Modality": "PT",
        "Units": "BQML",
        "CorrectedImage": ["ATTN", "DECY", "SCAT"],
        "DecayCorrection": "START",
        "PatientWeight": "70",
        "SeriesDate": "20260301",
        "SeriesTime": "120000",
        "AcquisitionDate": "20260301",
        "AcquisitionTime": "120500",
        "RadiopharmaceuticalInformationSequence": [injection],
    }
    return two_slices(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "dose_bq"),
    [
        ({}, 370e6 * 0.5 ** (7200 / 6586.2)),
        ({"DecayCorrection": "ADMIN"}, 370e6),
        # Reconstructed anew in the afternoon: the first acquisition counts.
        ({"SeriesTime": "170000"}, 370e6 * 0.5 ** (7500 / 6586.2)),
        ({"Units": "GML"}, 70_000.0),
    ],
)
def test_standardized_uptake_by_body_weight(
    tmp_path: Path, changes: dict[str, Any], dose_bq: float
) -> None:
    volume = load_volume(
        write_all(positron_series(**changes), tmp_path), VolumeInput(units="suvbw")
    )
    np.testing.assert_allclose(volume.values[0], pattern() * 70_000.0 / dose_bq, rtol=1e-5)


def test_uptake_that_an_image_states_itself_is_taken(tmp_path: Path) -> None:
    series = two_slices(RealWorldValueMappingSequence=[mapped(2, "{SUVbw}g/ml")])
    volume = load_volume(write_all(series, tmp_path), VolumeInput(units="suvbw"))
    np.testing.assert_allclose(volume.values[0], pattern() * 2.0 - 3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PatientWeight": None}, r"Patient's Weight \(0010,1030\) is not stated"),
        ({"PatientWeight": "0"}, "Patient's Weight"),
        ({"Units": "CNTS"}, r"Units \(0054,1001\) are CNTS, not BQML"),
        ({"CorrectedImage": ["ATTN"]}, "not corrected for decay"),
        ({"DecayCorrection": "NONE"}, r"Decay Correction \(0054,1102\) is NONE"),
        ({"RadiopharmaceuticalInformationSequence": []}, "no Radiopharmaceutical Information"),
        ({"AcquisitionTime": None}, "no Acquisition Date and Time"),
    ],
)
def test_uptake_is_refused_with_what_the_headers_lack(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    sources = write_all(positron_series(**changes), tmp_path)
    with pytest.raises(InputRefusedError, match=f"no standardized uptake .*{reason}"):
        load_volume(sources, VolumeInput(units="suvbw"))


@pytest.mark.parametrize(
    "name", ["examples_rgb_color.dcm", "examples_palette.dcm", "examples_ybr_color.dcm"]
)
def test_colour_is_grey_for_image_models_that_ask(name: str) -> None:
    path = Path(str(get_testdata_file(name)))
    grey = ImageInput(kind="image", size=32, colour="grey", frame="first")
    shown = load_radiograph([(name, path)], ACCEPTS, grey)
    assert shown.display.ndim == 2
    assert 100 < shown.display.max() <= 255.5
    assert "colour image turned to grey" in shown.remarks
    with pytest.raises(InputRefusedError, match="is not grayscale"):
        load_radiograph([(name, path)], ACCEPTS, ImageInput(kind="image", size=32, frame="first"))


def test_luminance_weighs_green_most(tmp_path: Path) -> None:
    rgb = np.zeros((2, 3, 3), np.uint8)
    rgb[0, 0], rgb[0, 1], rgb[0, 2] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    dataset = image(BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0)
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 2, 3, 3
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.PixelData = rgb.tobytes()
    grey = ImageInput(kind="image", size=32, colour="grey")
    shown = load_radiograph(written(dataset, tmp_path), ACCEPTS, grey)
    np.testing.assert_allclose(shown.display[0], [76.2, 149.7, 29.1], atol=0.1)


def test_lossy_jpeg_and_monochrome1_decode(shared_data: Path) -> None:
    path = shared_data / "dicom" / "transfer-syntaxes" / "MR1_JPLY.dcm"
    pixels = decode(read_instance(("MR1", path)))
    assert pixels.max() > 0
