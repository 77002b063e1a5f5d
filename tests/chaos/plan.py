"""What a round sends: studies, who sends them, and the bytes of each instance, all from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from pynetdicom.dsutils import encode

from tests.datasets import ct_slice

SENDERS = ("MODALITY_A", "MODALITY_B", "MODALITY_C")
"""The AE titles of the three senders."""

_SHARED_STUDIES = 0.2
_STUDY_SIZE = (15, 45)
_PIXEL_BYTES = (2_000, 50_000)
# A root below 2.25 (UUID-derived UIDs), so that no UID of a real object can be met.
_ROOT = "2.25.161803398874989"


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of the plan, as it will be sent."""

    study_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    encoded: bytes


@dataclass(frozen=True, slots=True)
class PlannedStudy:
    """A study of `size` instances; a study of two senders is sent in part by both.

    Attributes:
        parts: for each sender, the first and the last instance (half open) that it sends. The
            parts of two senders overlap: what lies in both is sent twice.
    """

    number: int
    size: int
    parts: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is sent in one round; equal seeds give equal bytes."""

    seed: int
    instances: int

    @property
    def studies(self) -> list[PlannedStudy]:
        """The studies, in the order in which each sender sends its own."""
        chance = random.Random(f"studies {self.seed}")
        planned = []
        left = self.instances
        while left > 0:
            size = min(left, chance.randint(*_STUDY_SIZE))
            planned.append(_study(chance, len(planned), size))
            left -= size
        return planned

    def study_instance_uid(self, study: PlannedStudy) -> str:
        """Return the UID of a study of this plan."""
        return f"{_ROOT}.{self.seed}.{study.number + 1}"

    def instances_of(self, study: PlannedStudy, sender: str) -> Iterator[Instance]:
        """Yield what `sender` sends of a study, encoded in Explicit VR Little Endian."""
        first, last = study.parts[sender]
        for number in range(first, last):
            yield self._instance(study, number)

    def _instance(self, study: PlannedStudy, number: int) -> Instance:
        chance = random.Random(f"instance {self.seed} {study.number} {number}")
        uid = self.study_instance_uid(study)
        series = f"{uid}.{1 + number % 2}"
        rows = chance.randint(*_PIXEL_BYTES) // 128
        dataset = ct_slice(
            uid,
            number + 1,
            SeriesInstanceUID=series,
            SOPInstanceUID=f"{series}.{number + 1}",
            PatientID=f"CHAOS{self.seed}-{study.number}",
            Rows=rows,
            Columns=64,
            PixelData=chance.randbytes(rows * 128),
        )
        encoded = encode(dataset, False, True)
        assert encoded is not None
        return Instance(uid, dataset.SOPInstanceUID, dataset.SOPClassUID, encoded)


def _study(chance: random.Random, number: int, size: int) -> PlannedStudy:
    if chance.random() < _SHARED_STUDIES and size >= 3:
        first, second = chance.sample(SENDERS, 2)
        third = size // 3
        return PlannedStudy(number, size, {first: (0, 2 * third), second: (third, size)})
    return PlannedStudy(number, size, {SENDERS[number % len(SENDERS)]: (0, size)})
