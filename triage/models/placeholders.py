"""What only a human can say of a model, marked where it is still to be said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

PLACEHOLDER = "FILL IN"
"""What `triage models init` writes where it cannot know."""


def unfilled(content: object, where: str = "") -> Iterator[str]:
    """Give the keys of a manifest whose values are still placeholders.

    >>> list(unfilled({"title": "FILL IN: a title", "findings": [{"key": "FILL IN"}]}))
    ['title', 'findings.0.key']
    """
    if isinstance(content, str):
        if PLACEHOLDER in content:
            yield where
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from unfilled(value, f"{where}.{key}".lstrip("."))
    elif isinstance(content, Sequence):
        for index, value in enumerate(content):
            yield from unfilled(value, f"{where}.{index}")
