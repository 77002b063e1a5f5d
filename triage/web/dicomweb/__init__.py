"""DICOMweb as an origin server for reading: QIDO-RS and WADO-RS (DICOM PS3.18 10.4, 10.6).

STOW-RS, the way in, is `triage.web.stow`.
"""
