"""Registered model packages: kept warm, and run from image files to findings."""
