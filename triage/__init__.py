"""Triage: the reading worklist, reordered by what the models find."""
