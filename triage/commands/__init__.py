"""Groups of the `triage` command. Thin: they parse, call and report."""
