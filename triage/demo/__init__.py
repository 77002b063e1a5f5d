"""`triage demo`: a small hospital on simulated studies, from the scanner to the worklist."""

from triage.demo.play import DemoError, run_demo

__all__ = ["DemoError", "run_demo"]
