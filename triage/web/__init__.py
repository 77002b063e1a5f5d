"""The pages and the API: worklist, study page with viewer, operations."""
