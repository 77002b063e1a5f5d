"""Simulated studies with known findings: for training recipes, tests and the demo."""
