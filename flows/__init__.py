"""The Prefect flows: how a study is carried from its images to its place on the worklist."""
