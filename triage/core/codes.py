"""Coded concepts, as DICOM writes them (PS3.3 section 8.8, Code Sequence Macro)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Code(BaseModel):
    """A concept in a coding scheme, for example (1386000, SCT, "Intracranial hemorrhage").

    >>> str(HEMORRHAGE_MORPHOLOGY)
    '(50960005, SCT, "Hemorrhage")'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Annotated[str, Field(min_length=1, max_length=64)]
    scheme: Annotated[str, Field(min_length=1, max_length=16)]
    meaning: Annotated[str, Field(min_length=1, max_length=64)]

    def __str__(self) -> str:
        return f'({self.value}, {self.scheme}, "{self.meaning}")'


HEMORRHAGE_MORPHOLOGY = Code(value="50960005", scheme="SCT", meaning="Hemorrhage")
MORPHOLOGICALLY_ABNORMAL_STRUCTURE = Code(
    value="49755003", scheme="SCT", meaning="Morphologically Abnormal Structure"
)
VOLUME = Code(value="118565006", scheme="SCT", meaning="Volume")
MILLILITRE = Code(value="mL", scheme="UCUM", meaning="milliliter")
