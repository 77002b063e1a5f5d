"""Retrieving studies from other archives: what they hold, and the ways in which they give it."""
