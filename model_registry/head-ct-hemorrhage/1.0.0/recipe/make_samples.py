"""Write the package's sample studies, and what the model says of them, into `samples/`.

Run as `python recipe/make_samples.py` after training. A host that runs the package must find the
same within the stated tolerances: that is how a broken installation is noticed.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from bundle import PACKAGE
from evaluate import examine_folder

from triage.simulator.dicom import StudyIdentity, TransferSyntax, head_ct_series, write_series
from triage.simulator.head_ct import HemorrhageKind, LesionSpec, simulate_head_ct

SAMPLES = {
    "positive": (LesionSpec(HemorrhageKind.INTRAPARENCHYMAL, 22.0, 66.0),),
    "negative": (),
}
TOLERANCE = {"volume_ml_relative": 0.05, "volume_ml": 0.2, "confidence": 0.03}


def main() -> None:
    """Write both studies and `samples/expected.json`."""
    expected = {}
    for seed, (name, lesions) in enumerate(SAMPLES.items(), start=4_000_000):
        study = simulate_head_ct(
            np.random.default_rng(seed),
            shape=(26, 256, 256),
            spacing_mm=(5.0, 0.92, 0.92),
            lesions=lesions,
        )
        identity = StudyIdentity(f"Sample^{name.title()}", f"SAMPLE-{name.upper()}", f"S{seed}")
        series = head_ct_series(
            study, identity, seed=seed, transfer_syntax=TransferSyntax.JPEG_LS_LOSSLESS
        )
        folder = PACKAGE / "samples" / name
        write_series(series, folder)
        said = examine_folder(folder)
        expected[name] = {
            "true_volume_ml": round(study.volume_ml, 3),
            "findings": {
                "intracranial-hemorrhage": {
                    "present": said["present"],
                    "volume_ml": said["volume_ml"],
                    "confidence": said["confidence"],
                }
            },
            "tolerance": TOLERANCE,
        }
    text = json.dumps(expected, indent=2)
    (PACKAGE / "samples" / "expected.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
