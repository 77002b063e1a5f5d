"""Results: the objects, what outside validators say of them, and their way to an archive."""
