"""Write `samples/`: a drawn chest as a DX object, and what the shipped program says of it.

Run after `train.py`. The drawing is no patient and the answer means nothing; a program, a loader
or a machine that gives another answer than `expected.json` does something different.
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from dataset import FINDINGS, PROJECT_ROOT, URGENT, preprocess
from training import Settings

sys.path.insert(0, str(PROJECT_ROOT))
from triage.simulator.phantom import draw_chest
from triage.simulator.radiograph import Examination, Subject, radiograph

PACKAGE = Path(__file__).resolve().parents[1]
KEYS = [name.lower() for name in (*FINDINGS, URGENT)]
# Other processors and thread counts sum in another order; a wrong resampling moves more.
TOLERANCE = 0.01


def main() -> None:
    """Draw, ask and write."""
    pixels = (draw_chest(320, seed=1) >> 4).astype(np.uint8)
    dataset = radiograph(
        pixels,
        Subject("SYNTHETIC-CHEST", "Synthetic^Chest"),
        Examination("SYNTHETIC-CHEST", datetime(2026, 1, 1, tzinfo=UTC), spacing_mm=(1.2, 1.2)),
    )
    folder = PACKAGE / "samples"
    folder.mkdir(exist_ok=True)
    dataset.save_as(folder / "synthetic-chest.dcm", enforce_file_format=True)
    program = torch.export.load(PACKAGE / "models" / "model.pt2").module()
    with torch.no_grad():
        probabilities, _ = program(preprocess(pixels, Settings().size)[None])
    answer = {
        "input": "synthetic-chest.dcm",
        "probabilities": {
            key: round(float(value), 4) for key, value in zip(KEYS, probabilities[0], strict=True)
        },
        "tolerance": TOLERANCE,
    }
    (folder / "expected.json").write_text(json.dumps(answer, indent=2) + "\n")


if __name__ == "__main__":
    main()
