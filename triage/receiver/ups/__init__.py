"""Unified procedure steps over DICOM: the reading worklist for workstations (DICOM PS3.4 CC)."""

from triage.receiver.ups.service import ups_services

__all__ = ["ups_services"]
