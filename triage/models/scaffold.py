"""`triage models init`: a package from what an engineer has, with what is left to say marked."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from triage.models.bundles import Bundle, read_bundle
from triage.models.model_files import ModelFile, ScaffoldError, read_model_file
from triage.models.package_samples import FOLDER
from triage.models.packages import MANIFEST_NAME, file_sha256
from triage.models.placeholders import PLACEHOLDER

_NAME = re.compile(r"[a-z][a-z0-9-]{1,62}")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_MODALITIES_OF_IMAGES = ("CR", "DX", "MG")


@dataclass(frozen=True, slots=True)
class Said:
    """What the engineer says beside the files; what is empty is taken from them.

    Attributes:
        name: of the model; without it made from the source's name.
        version: of the model.
        modality: Modality of the images that it accepts.
        size: rows and columns of the image that it takes; None for a model of volumes.
        labels: what it looks for: the names of its channels, or of its labels from 1 on.
    """

    name: str = ""
    version: str = ""
    modality: str = ""
    size: int | None = None
    labels: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Draft:
    """All that a manifest is written from."""

    name: str
    version: str
    title: str
    intended_use: str
    authors: str
    modality: str
    runner: Sequence[str]
    size: int | None
    labels: Sequence[tuple[int, str]]
    is_segmenting: bool
    files: Sequence[tuple[Path, str]] = field(default=())


def scaffold(source: Path, destination: Path, said: Said) -> Path:
    """Make a package in `destination` from a MONAI bundle's folder or a model's file; return it.

    Raises:
        ScaffoldError: `source` is neither, or `destination` exists.
    """
    if destination.exists():
        raise ScaffoldError(f"{destination}: exists already; choose another folder with --out")
    if source.is_dir():
        draft = _of_bundle(read_bundle(source), said)
    else:
        draft = _of_file(read_model_file(source), said)
    destination.mkdir(parents=True)
    if source.is_dir():
        shutil.copytree(source, destination, dirs_exist_ok=True)
    for path, inside in draft.files:
        (destination / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, destination / inside)
    (destination / MANIFEST_NAME).write_text("\n".join(_manifest(draft)) + "\n", encoding="utf-8")
    (destination / "MODEL_CARD.md").write_text(_card(draft), encoding="utf-8")
    (destination / FOLDER).mkdir(exist_ok=True)
    (destination / FOLDER / "README.md").write_text(_SAMPLES_README, encoding="utf-8")
    return destination


def _of_bundle(bundle: Bundle, said: Said) -> _Draft:
    labels = dict(enumerate(said.labels, start=1)) or bundle.labels or {1: PLACEHOLDER}
    runner = ["kind: monai-bundle", *_weights(bundle.folder / bundle.weights, bundle.weights)]
    if bundle.config != "configs/inference.json":
        runner.append(f"config: {bundle.config}")
    return _Draft(
        name=_name(said.name or bundle.folder.resolve().name),
        version=_version(said.version or bundle.version),
        title=bundle.title,
        intended_use=bundle.intended_use,
        authors=bundle.authors,
        modality=said.modality or bundle.modality,
        runner=runner,
        size=None,
        labels=sorted(labels.items()),
        is_segmenting=True,
    )


def _of_file(file: ModelFile, said: Said) -> _Draft:
    size = said.size or file.image_size
    is_image = size is not None or said.modality in _MODALITIES_OF_IMAGES
    if is_image and size is None:
        raise ScaffoldError(f"{file.path}: does not say how large its images are; give --size ROWS")
    inside = file.path.name if file.kind == "python" else f"models/{file.path.name}"
    if file.kind == "python":
        runner = ["kind: python", f"entry: {file.entry}"]
    else:
        runner = [f"kind: {file.kind}", *_weights(file.path, inside)]
    names = list(said.labels) or [PLACEHOLDER] * (file.channels or 1)
    return _Draft(
        name=_name(said.name or file.path.stem),
        version=_version(said.version),
        title="",
        intended_use="",
        authors="",
        modality=said.modality,
        runner=runner,
        size=size,
        labels=list(enumerate(names, start=0 if is_image else 1)),
        is_segmenting=not is_image,
        files=[(file.path, inside)],
    )


def _weights(path: Path, inside: str) -> list[str]:
    return [f"weights: {inside}", f"weights_sha256: {file_sha256(path)}"]


def _name(text: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if not _NAME.fullmatch(name):
        raise ScaffoldError(f"name: {text!r} gives no name of a model; say one with --name")
    return name


def _version(text: str) -> str:
    return text if _VERSION.fullmatch(text) else "0.1.0"


def _or_ask(value: str, what: str) -> str:
    return json.dumps(value if value else f"{PLACEHOLDER}: {what}")


def _manifest(draft: _Draft) -> Iterator[str]:
    yield f"# What {PLACEHOLDER} stands at only you can say; `triage models check` lists the rest."
    yield "schema_version: 1"
    yield f"name: {draft.name}"
    yield "# A registered version never changes its content: raise it with every change."
    yield f"version: {draft.version}"
    yield f"title: {_or_ask(draft.title[:120], 'what it finds, on which images')}"
    yield f"intended_use: {_or_ask(draft.intended_use, 'for whom, on which images, to what end')}"
    yield "notice: Research use only, not for clinical use."
    yield f"licence: {_or_ask('', 'an SPDX identifier')}"
    yield "accepts:"
    yield f"  modalities: [{_or_ask(draft.modality, 'CT, MR, DX …')}]"
    yield "  # Without these any series of the modality is analysed:"
    yield "  # body_parts: [HEAD]"
    yield "  # description_pattern: '\\bhead\\b'"
    yield "  # slice_thickness_mm: {minimum: 0.5, maximum: 6.0}"
    yield "runner:"
    yield from (f"  {line}" for line in draft.runner)
    yield "  time_limit_s: 120"
    yield from _input(draft)
    yield "findings:"
    for number, label in draft.labels:
        yield from _finding(draft, number, label)
    yield "results:"
    yield f"  objects: [{'seg, sr' if draft.is_segmenting else 'sr'}]"


def _input(draft: _Draft) -> Iterator[str]:
    if draft.size is None:
        yield "  input: {kind: volume}"
        return
    yield "  # As in training: percentile stretches each image, bits divides by the stored range."
    yield f"  input: {{kind: image, size: {draft.size}, scaling: percentile}}"


def _finding(draft: _Draft, number: int, label: str) -> Iterator[str]:
    is_named = label != PLACEHOLDER
    key = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-") if is_named else f"finding-{number}"
    meaning = label[:1].upper() + label[1:] if is_named else f"{PLACEHOLDER}: what it finds"
    code = f'{{value: "{PLACEHOLDER}", scheme: SCT, meaning: {json.dumps(meaning[:64])}}}'
    yield f"  - key: {key}"
    yield "    # A code of SNOMED CT (scheme SCT), RadLex (RADLEX) or your own (99YOURS)."
    yield f"    code: {code}"
    if draft.is_segmenting:
        yield f"    segment: {{label: {number}, type: {code}}}"
        yield "    minimum_volume_ml: 0.0"
    else:
        yield f"    channel: {number}"
    yield "    # Choose it on validation studies: from this confidence on the finding is present."
    yield "    threshold: 0.5"
    yield "    # routine, high or stat: what a present finding asks the worklist for."
    yield "    priority: routine"


def _card(draft: _Draft) -> str:
    authors = draft.authors or f"{PLACEHOLDER}: who made it, and whom to ask"
    return f"""# {draft.title or draft.name} {draft.version}

## Intended use

{draft.intended_use or f"{PLACEHOLDER}: for whom, on which images, to what end, and not for what."}

## Data

{PLACEHOLDER}: what it was trained on, and what it was tested on (sites, scanners, years, labels).

## Performance

{PLACEHOLDER}: sensitivity and specificity at the threshold, with intervals, and on whom.
`triage models evaluate` measures them.

## Where it fails

{PLACEHOLDER}: patients, scanners and findings on which it does worse; what it does not look for.

## Authors

{authors}
"""


_SAMPLES_README = """# Samples

Put a small study without patient data here: a folder of DICOM files, or one file. Then

    triage models check . --record

writes what the model says about it to `expected.json`. Read that file: from then on every check
on every machine compares with it.
"""
