"""Structured logs: one JSON line per event, with identifiers of studies and runs, never names."""

from __future__ import annotations

import logging
import sys
import warnings

import structlog


def configure_logs(*, for_people: bool = False, least: int = logging.INFO) -> None:
    """Send log lines of level `least` and above to standard error: JSON, or text `for_people`."""
    renderer = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if for_people
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # pydicom and pynetdicom quote values of attributes in their messages, and httpx the addresses
    # that it asks, in which a search names its patient.
    for noisy in ("pydicom", "pynetdicom", "highdicom", "monai", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module=noisy)
