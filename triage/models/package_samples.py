"""`samples/` of a package: small inputs, and what the model should say about them.

`expected.json` names each sample, a folder or a file, with its findings:

    {"positive": {"findings": {"hemorrhage": {"present": true, "confidence": 0.92}},
                  "tolerance": {"confidence": 0.03}}}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triage.core.codes import VOLUME
from triage.core.errors import TriageError
from triage.core.findings import Finding

FOLDER = "samples"
EXPECTED = "expected.json"
DEFAULT_TOLERANCE = 0.02
_NOT_A_SAMPLE = {EXPECTED, "README.md"}


class SampleError(TriageError):
    """The samples of a package contradict themselves; the message names the file and the fix."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An input and what is expected of it: numbers by finding, and how far off they may be."""

    name: str
    path: Path
    findings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tolerance: Mapping[str, float] = field(default_factory=dict)

    def contradictions(self, said: Sequence[Finding]) -> list[str]:
        """Return in words where the model says something else."""
        by_key = {finding.key: finding for finding in said}
        return [
            words
            for key, wanted in self.findings.items()
            for words in self._contradictions_of(key, wanted, by_key.get(key))
        ]

    def _contradictions_of(
        self, key: str, wanted: Mapping[str, Any], finding: Finding | None
    ) -> Iterator[str]:
        if finding is None:
            yield f"{key} is expected, and the model does not look for it"
            return
        if "present" in wanted and finding.present is not wanted["present"]:
            yield f"{key} is {'present' if finding.present else 'absent'}, not as expected"
        for name, value in _numbers_of(finding).items():
            expected = wanted.get(name)
            if expected is not None and abs(value - expected) > self._allowed(name, expected):
                yield f"{key}: {name} is {value:.4g}, expected {expected:.4g}"

    def _allowed(self, name: str, expected: float) -> float:
        absolute = self.tolerance.get(name, DEFAULT_TOLERANCE)
        return max(absolute, self.tolerance.get(f"{name}_relative", 0.0) * abs(expected))


def samples_of(package_folder: Path) -> list[Sample]:
    """Return the samples of a package, those without an expectation included.

    Raises:
        SampleError: expected.json is not what it should be.
    """
    folder = package_folder / FOLDER
    expected = _expectations(folder / EXPECTED)
    names = {p.name for p in folder.glob("*") if p.name not in _NOT_A_SAMPLE and p.name[0] != "."}
    missing = sorted(set(expected) - names)
    if missing:
        raise SampleError(
            f"{folder / EXPECTED}: {missing[0]}: there is no such file or folder in {FOLDER}; "
            "add it, or remove the entry"
        )
    return [Sample(name, folder / name, **expected.get(name, {})) for name in sorted(names)]


def record_expectations(package_folder: Path, said: Mapping[str, Sequence[Finding]]) -> Path:
    """Write what the model said about each sample as what is expected from now on."""
    content = {
        name: {
            "findings": {
                f.key: {"present": f.present, **{k: round(v, 4) for k, v in _numbers_of(f).items()}}
                for f in findings
            },
            "tolerance": {
                "confidence": DEFAULT_TOLERANCE,
                "volume_ml": 0.2,
                "volume_ml_relative": 0.05,
            },
        }
        for name, findings in said.items()
    }
    path = package_folder / FOLDER / EXPECTED
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def _expectations(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise SampleError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise SampleError(f"{path}: expected a mapping of samples")
    if "probabilities" in content:  # one sample, of a classification
        findings = {key: {"confidence": p} for key, p in content["probabilities"].items()}
        tolerance = {"confidence": float(content.get("tolerance", DEFAULT_TOLERANCE))}
        return {str(content.get("input")): {"findings": findings, "tolerance": tolerance}}
    wrong = [name for name, one in content.items() if "findings" not in one]
    if wrong:
        raise SampleError(f"{path}: {wrong[0]}: findings: this key is required; add it")
    return {
        name: {"findings": one["findings"], "tolerance": one.get("tolerance", {})}
        for name, one in content.items()
    }


def _numbers_of(finding: Finding) -> dict[str, float]:
    numbers = {"confidence": finding.confidence}
    for measurement in finding.measurements:
        if measurement.concept.value == VOLUME.value:
            numbers["volume_ml"] = measurement.value
    return numbers
