"""Mutated input for every entrance: bounded with the tests, at length by `python -m tests.fuzz`."""
