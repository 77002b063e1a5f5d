"""The domain: studies, findings, priorities, runs, manifests and the rules between them. No I/O."""
