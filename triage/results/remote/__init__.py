"""Models that others run: images to them without identity, and results back into their studies."""
