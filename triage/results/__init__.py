"""Findings become DICOM objects, and the objects reach their destinations."""
