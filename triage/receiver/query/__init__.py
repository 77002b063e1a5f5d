"""The Query/Retrieve SCP (DICOM PS3.4 annex C): C-FIND, C-MOVE and C-GET over what is held."""

from triage.receiver.query.service import query_retrieve_services

__all__ = ["query_retrieve_services"]
