"""The packages that come with Triage, known by their digests: whoever runs Triage trusts them.

`python -m triage.models.shipped model_registry` writes the list anew after a package was changed.
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from pathlib import Path

from triage.models.packages import MANIFEST_NAME, ModelPackage, load_package

APPROVED_BY = "Triage"
APPROVED_BECAUSE = "shipped with Triage"

_LIST = Path(__file__).with_name("shipped.json")


def is_shipped(package: ModelPackage) -> bool:
    """Return whether this very content came with Triage."""
    return package.sha256 in _digests()


def digests_in(registry_folder: Path) -> dict[str, str]:
    """Return the digest of each package `NAME/VERSION/` below `registry_folder`, by identity."""
    packages = [load_package(p.parent) for p in registry_folder.glob(f"*/*/{MANIFEST_NAME}")]
    return {p.manifest.identity: p.sha256 for p in sorted(packages, key=lambda p: p.path)}


def shipped_list() -> dict[str, str]:
    """Return the list as it was written."""
    return dict(json.loads(_LIST.read_text(encoding="utf-8")))


@lru_cache(maxsize=1)
def _digests() -> frozenset[str]:
    return frozenset(shipped_list().values())


if __name__ == "__main__":
    _LIST.write_text(json.dumps(digests_in(Path(sys.argv[1])), indent=2) + "\n", encoding="utf-8")
