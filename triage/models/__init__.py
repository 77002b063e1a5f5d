"""Registered model packages: loaded, warm in their own processes, and run from files to findings."""
