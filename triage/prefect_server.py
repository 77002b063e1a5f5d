"""The embedded Prefect server: its command, and the environment of everything that calls it."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from triage.settings import Settings


def prefect_environment(settings: Settings) -> Mapping[str, str]:
    """Return the variables that point Prefect's client and server at our own data folder.

    They must be set before `prefect` is imported.
    """
    return {
        "PREFECT_HOME": str(settings.data_directory.absolute() / "prefect"),
        "PREFECT_API_URL": settings.prefect_api_url,
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # A server that is away must be noticed in seconds: the runs wait in our own database.
        "PREFECT_CLIENT_MAX_RETRIES": "2",
        "PREFECT_API_REQUEST_TIMEOUT": "15",
        "PREFECT_CLI_PROMPT": "false",
        # Kinds of credentials and notifications for Prefect's own pages; Triage uses none.
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    }


def prefect_server_command(settings: Settings) -> list[str]:
    """Return the command that runs the server on the configured address.

    Its background services (schedules, late runs, event triggers) are left out: Triage schedules
    nothing through Prefect, and on two cores they cost more than all the flows. A home without a
    database gets a migrated one first.
    """
    return [
        *(sys.executable, "-m", "triage.prefect_database"),
        *(sys.executable, "-m", "prefect"),
        "server",
        "start",
        "--host",
        settings.prefect.host,
        "--port",
        str(settings.prefect.port),
        "--no-services",
    ]
