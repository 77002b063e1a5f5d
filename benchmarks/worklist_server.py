"""The pages alone, on a database that is there: DATABASE_URL PORT."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import uvicorn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from triage.settings import Settings
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.web.app import create_app, spare_what_stays


def main() -> None:
    """Serve until a signal."""
    url, port = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(), Database(url), InstanceFiles(Path(folder) / "data"))
        spare_what_stays()  # as run_web does
        uvicorn.run(app, port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
