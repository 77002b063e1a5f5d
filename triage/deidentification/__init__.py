"""De-identification (DICOM PS3.15 Annex E), and the way back for what returns."""
