"""A chest radiograph with what its model leaves, as the shipped model does: a picture, no map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.results.scenes import build, chest_analysis, chest_manifest, write_chest
from tests.web.hospital import Hospital


def analysed_chest(
    hospital: Hospital, folder: Path, *objects: str, **changes: Any
) -> tuple[Dataset, list[Dataset]]:
    """Receive a radiograph, analyse it, and return it with the objects that the run left.

    `objects` are those that the manifest asks for; `changes` those of the image.
    """
    file = write_chest(folder, **changes)
    image = dcmread(file)
    manifest = chest_manifest(results={"objects": objects or ("sr", "heat-map")})
    stated = manifest.model_dump(mode="json", exclude_unset=True)
    stated["accepts"] = stated.pop("inputs")[0]["accepts"]
    hospital.register_model(**stated)
    hospital.complete(hospital.receive(image, ae_title="DX1"))
    analysis = chest_analysis(file)
    made = [one.dataset for one in build(analysis, manifest)]
    hospital.finish(hospital.claim(), *analysis.findings, objects=made)
    return image, made
