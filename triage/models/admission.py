"""How a package gets in: unpacked, checked, its signature verified, and kept under its digest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from triage.models.archives import open_package
from triage.models.package_store import PackageStore
from triage.models.packages import ModelPackage, PackageError
from triage.models.shipped import is_shipped
from triage.models.signatures import signature_of, verify_signature
from triage.settings import Settings, TrustSettings


@dataclass(frozen=True, slots=True)
class AdmittedPackage:
    """A package in its place in the data directory, and whose signature it bears ("" for none)."""

    package: ModelPackage
    signed_by: str


class Admission:
    """The door for model packages of this installation."""

    def __init__(self, settings: Settings) -> None:
        self._trust: TrustSettings = settings.trust
        self._store = PackageStore(settings.packages_directory)

    def admit(self, path: Path) -> AdmittedPackage:
        """Take in the package at `path`, a folder or an archive.

        What is verified is the copy that is kept, so nothing can change in between.

        Raises:
            PackageError: it is broken, wrongly signed, or unsigned where a signature is required.
        """
        with open_package(path) as folder, self._store.staged(folder) as staged:
            signature = signature_of(folder) or signature_of(path)
            signed_by = self._signer_of(staged, path, signature)
            return AdmittedPackage(self._store.keep(staged), signed_by)

    def _signer_of(self, staged: ModelPackage, path: Path, signature: Path | None) -> str:
        if signature is not None and self._trust.public_keys:
            return verify_signature(staged.path, signature, self._trust.public_keys)
        if self._trust.require_signature and not is_shipped(staged):
            reason = "is not signed" if signature is None else "is signed by nobody who is known"
            raise PackageError(
                f"{path}: {staged.manifest.identity} {reason}, and trust.require_signature is on; "
                "sign it with `triage models sign`, and name the key in trust.public_keys"
            )
        return ""
