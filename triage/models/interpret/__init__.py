"""From what a model says to coded findings, through gates that let nothing impossible pass."""

from triage.models.interpret.gates import check_tissue
from triage.models.interpret.images import interpret_image
from triage.models.interpret.reading import Interpretation
from triage.models.interpret.segments import VOXEL_PROBABILITY
from triage.models.interpret.volumes import interpret_volume

__all__ = [
    "VOXEL_PROBABILITY",
    "Interpretation",
    "check_tissue",
    "interpret_image",
    "interpret_volume",
]
