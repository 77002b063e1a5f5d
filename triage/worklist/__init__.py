"""The reading worklist: which study comes next, why, and what became of it."""
