"""Series Descriptions of results, as a site words them."""

from __future__ import annotations

from string import Formatter

from triage.core.errors import TriageError

PLACEHOLDERS = ("finding", "model", "version", "kind")
"""What a template may name: the most urgent finding ("Hemorrhage +1"), the model's name and its
version, and the kind of object ("seg", "heat map")."""

_LONG_STRING = 64  # the VR LO, DICOM PS3.5 6.2
_LEAST_OF_FINDING, _LEAST_OF_MODEL = 20, 12


class DescriptionError(TriageError, ValueError):
    """A template cannot be used; the message says why and names what it may hold."""


def check_template(template: str) -> str:
    """Return `template`, if it can be filled in.

    Raises:
        DescriptionError: it names what is unknown, or is no text that a description can be.
    """
    known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise DescriptionError(
            f"a brace is not closed or not opened ({error}); known are {known}"
        ) from None
    for _, name, form, conversion in parts:
        if name is not None and name not in PLACEHOLDERS:
            raise DescriptionError(f"{{{name}}} is unknown; known are {known}")
        if form or conversion:
            raise DescriptionError(f"{{{name}}} takes no format; known are {known}")
    if not template.strip():
        raise DescriptionError(f"it is empty; write words, and any of {known}")
    if "\\" in template or not template.isprintable():
        raise DescriptionError("a description (VR LO) holds neither backslashes nor line ends")
    return template


def described(template: str, *, finding: str, model: str, version: str, kind: str) -> str:
    """Return the description, at most 64 characters: the finding gives way, then the model.

    >>> described("AI: {finding} ({model} {version})", finding="Pneumothorax", model="chest-xray",
    ...           version="1.0.0", kind="seg")
    'AI: Pneumothorax (chest-xray 1.0.0)'
    >>> described("{kind}: {finding} ({model})", finding="Pneumothorax of the left upper lobe +1",
    ...           model="a-model-of-a-research-group", version="1.0.0", kind="seg")
    'seg: Pneumothorax of the left u... (a-model-of-a-research-group)'
    """

    def filled() -> str:
        return template.format(finding=finding, model=model, version=version, kind=kind)

    if (over := len(filled()) - _LONG_STRING) > 0:
        finding = _cut(finding, max(len(finding) - over, _LEAST_OF_FINDING))
    if (over := len(filled()) - _LONG_STRING) > 0:
        model = _cut(model, max(len(model) - over, _LEAST_OF_MODEL))
    return filled()[:_LONG_STRING].strip()


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3].strip()}..."
