"""What a model package may say of itself, and how mistakes are answered."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.rows import manifest
from triage.core.manifest import ManifestError, ModelManifest, Range, parse_manifest
from triage.core.priority import Priority

numbers = st.floats(-1e6, 1e6, allow_nan=False)


def changed(**changes: Any) -> dict[str, Any]:
    """Return a valid manifest with some keys changed; None removes one."""
    content = {**manifest(), **changes}
    return {key: value for key, value in content.items() if value is not None}


def test_a_valid_manifest_is_read_and_survives_the_database() -> None:
    parsed = parse_manifest(manifest(), source="model.yaml")
    assert parsed.identity == "head-ct 1.0.0"
    assert parsed.findings[0].priority is Priority.STAT
    assert ModelManifest.model_validate(parsed.model_dump(mode="json")) == parsed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"titel": "x"}, "titel: this key is unknown"),
        ({"title": None}, "title: this key is required; add it"),
        ({"version": "1.0"}, "version: .*1.0"),
        ({"name": "Head CT"}, "name: "),
        ({"findings": []}, "findings: "),
        ({"results": {"objects": ["seg"]}}, "asks for seg, but no finding has a segment"),
        ({"accepts": {"modalities": []}}, "accepts.modalities"),
        (
            {"accepts": {"modalities": ["CT"], "description_pattern": "("}},
            "accepts.description_pattern: not a regular expression",
        ),
        (
            {"accepts": {"modalities": ["CT"], "images": {"minimum": 2, "maximum": 1}}},
            "accepts.images: minimum is greater than maximum",
        ),
    ],
)
def test_a_mistake_is_answered_with_its_key_and_the_fix(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ManifestError, match=f"(?s)model.yaml: .*{message}"):
        parse_manifest(changed(**changes), source="model.yaml")


VOLUME = {"input": {"kind": "volume"}}
WEIGHTS = {"weights": "w", "weights_sha256": "0" * 64} | VOLUME
NETWORK = {"kind": "onnx"} | WEIGHTS
BOX = {"key": "b", "code": {"value": "1", "scheme": "99T", "meaning": "B"}, "box": {"label": 0}}


@pytest.mark.parametrize(
    ("runner", "message"),
    [
        ({"kind": "onnx"} | VOLUME, "weights is required for the kind onnx; add it"),
        ({"kind": "onnx", "weights": "w"} | VOLUME, "weights and weights_sha256 go together"),
        ({"kind": "python"} | VOLUME, "needs exactly one of entry .* and entry_point"),
        (
            {"kind": "python", "entry": "a:B", "entry_point": "c"} | VOLUME,
            "needs exactly one of entry",
        ),
        ({"kind": "python", "entry": "a.py"} | VOLUME, "entry: must be MODULE:CLASS"),
        (NETWORK | {"entry": "a:B"}, "entry is for the kind python; remove it"),
        (NETWORK | {"overrides": {"a": 1}}, "overrides is for the kind monai-bundle"),
        (
            NETWORK | {"kind": "monai-bundle", "activation": "sigmoid"},
            "activation is for the kind torch-export or torchscript or onnx",
        ),
        (NETWORK | {"preprocessing": {"orientation": "RAR"}}, "three letters, one of R and L"),
        (NETWORK | {"preprocessing": {"mean": [1.0]}}, "mean and std go together"),
        (
            NETWORK | {"preprocessing": {"each_slice": True, "orientation": "RAS"}},
            "each_slice takes the slices as they are",
        ),
        (NETWORK | {"preprocessing": {"sliding_window": {"roi": [8, 0, 8]}}}, "roi: must be three"),
        (
            NETWORK
            | {"input": {"kind": "image", "size": 32}, "preprocessing": {"orientation": "RAS"}},
            "are for volumes; remove them",
        ),
        (NETWORK | {"measurement_names": ["a"]}, "measurement_names and the output measurements"),
    ],
)
def test_a_runner_is_given_what_its_kind_needs(runner: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=f"(?s)model.yaml: runner.*{message}"):
        parse_manifest(changed(runner=runner), source="model.yaml")


def test_a_network_names_the_outputs_that_findings_are_read_from() -> None:
    with pytest.raises(ManifestError, match="finding b is read from boxes, box_labels, box_scores"):
        parse_manifest(changed(runner=NETWORK, findings=[BOX]), source="model.yaml")
    outputs = ["boxes", "box_labels", "box_scores"]
    content = changed(runner=NETWORK | {"outputs": outputs}, findings=[BOX])
    parsed = parse_manifest(content, source="model.yaml")
    assert ModelManifest.model_validate(parsed.model_dump(mode="json")) == parsed


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "a/../../x", "\\\\host\\x", "C:\\x", "a\\..\\b"]
)
def test_weights_stay_inside_the_package(path: str) -> None:
    runner = {**manifest()["runner"], "weights": path}
    with pytest.raises(ManifestError, match="inside the package"):
        parse_manifest(changed(runner=runner), source="model.yaml")


@pytest.mark.parametrize(
    "extra", [{"segment": {}, "channel": 0}, {"segment": None, "channel": None}]
)
def test_a_finding_is_read_from_exactly_one_place(extra: dict[str, Any]) -> None:
    code = manifest()["findings"][0]["code"]
    if extra["segment"] is not None:
        extra = {**extra, "segment": {"label": 1, "type": code}}
    finding = {**manifest()["findings"][0], **extra}
    with pytest.raises(ManifestError, match="exactly one of segment, channel, box and measurement"):
        parse_manifest(changed(findings=[finding]), source="model.yaml")


def test_findings_have_different_keys_and_labels() -> None:
    one = manifest()["findings"][0]
    with pytest.raises(ManifestError, match=r"findings\.key must differ; repeated: hemorrhage"):
        parse_manifest(changed(findings=[one, one]), source="model.yaml")


@pytest.mark.parametrize("content", [None, [], "text", 3])
def test_what_is_no_mapping_is_said_so(content: Any) -> None:
    with pytest.raises(ManifestError, match="expected a mapping"):
        parse_manifest(content, source="model.yaml")


@given(numbers, numbers, numbers)
def test_a_range_holds_its_ends_and_what_is_between(a: float, b: float, value: float) -> None:
    low, high = sorted((a, b))
    wanted = Range(minimum=low, maximum=high)
    assert wanted.holds(low)
    assert wanted.holds(high)
    assert wanted.holds(value) == (low <= value <= high)
    assert Range().holds(value)
