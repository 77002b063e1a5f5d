"""Notices as FHIR R4 resources."""
