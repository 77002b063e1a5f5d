"""The way of results to those who get them: one module for each kind of destination."""
