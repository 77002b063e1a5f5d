"""Model packages on disk: one folder that explains itself, checked before anything is run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import yaml

from triage.core.errors import TriageError
from triage.core.manifest import ImageInput, ManifestError, ModelManifest, parse_manifest

MANIFEST_NAME = "model.yaml"
BUNDLE_CONFIGS = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
SIGNATURE_NAME = "model.sig"
_CHUNK = 1 << 20


class PackageError(TriageError):
    """A model package cannot be used; the message names the file or key, and the fix."""


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A checked package: its manifest, its folder, and the digest of all that is in the folder."""

    manifest: ModelManifest
    path: Path
    sha256: str

    @property
    def weights(self) -> Path:
        """The file of the weights."""
        return self.path / self.manifest.runner.weights


def load_package(folder: Path) -> ModelPackage:
    """Return the package in `folder`, its manifest parsed and the digest of its weights checked.

    Raises:
        PackageError: the manifest is missing or wrong, or the weights are not those it names.
    """
    path = folder.absolute()
    manifest = _read_manifest(path)
    _check_supported(path / MANIFEST_NAME, manifest)
    _check_weights(path, manifest)
    return ModelPackage(manifest, path, package_sha256(path))


def package_sha256(folder: Path) -> str:
    """Return the digest of a package's content: each file's relative path and SHA-256, sorted."""
    digest = hashlib.sha256()
    for relative in package_files(folder):
        digest.update(f"{relative.as_posix()}\0{file_sha256(folder / relative)}\n".encode())
    return digest.hexdigest()


def package_files(folder: Path) -> tuple[Path, ...]:
    """Return the files that make up a package, relative to its folder, sorted.

    Python's caches are left out, because importing a recipe would change the package, and so is
    the signature, which speaks of all the others.
    """
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    kept = (p for p in found if "__pycache__" not in p.parts and p != Path(SIGNATURE_NAME))
    return tuple(sorted(kept, key=Path.as_posix))


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _read_manifest(folder: Path) -> ModelManifest:
    path = folder / MANIFEST_NAME
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PackageError(
            f"{path}: there is no such file; a package is a folder with a {MANIFEST_NAME}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise PackageError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise PackageError(f"{path}: not valid YAML: {error}") from None
    try:
        return parse_manifest(content, source=str(path))
    except ManifestError as error:
        raise PackageError(str(error)) from None


def _check_supported(source: Path, manifest: ModelManifest) -> None:
    runner = manifest.runner
    if runner.kind == "monai-bundle":
        named = (runner.config,) if runner.config else BUNDLE_CONFIGS
        if not any((source.parent / config).is_file() for config in named):
            raise PackageError(
                f"{source.parent / named[0]}: there is no such file; a monai-bundle needs its "
                f"inference configuration ({' or '.join(named)})"
            )
    for finding in manifest.findings:
        if finding.segment is not None and finding.segment.label > 255:
            raise PackageError(
                f"{source}: findings.{finding.key}.segment.label: must be at most 255, because "
                f"masks are 8 bits deep (found {finding.segment.label})"
            )
        if finding.segment is not None and isinstance(runner.input, ImageInput):
            raise PackageError(
                f"{source}: findings.{finding.key}.segment: a model of single images has no "
                "segments; give channel or box instead"
            )


def _check_weights(folder: Path, manifest: ModelManifest) -> None:
    if not manifest.runner.weights:
        return  # a Python model may have none
    weights = folder / manifest.runner.weights
    if not weights.is_file():
        raise PackageError(
            f"{folder / MANIFEST_NAME}: runner.weights: there is no file "
            f"{manifest.runner.weights} in the package; add it"
        )
    found = file_sha256(weights)
    if found != manifest.runner.weights_sha256:
        raise PackageError(
            f"{folder / MANIFEST_NAME}: runner.weights_sha256: {manifest.runner.weights} has the "
            f"digest {found}; restore the file, or state this digest if the weights are meant"
        )
