"""The package's own configuration, as the recipe runs it: a volume in, probabilities out."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged
from numpy.typing import NDArray

PACKAGE = Path(__file__).resolve().parents[1]


def to_meta_tensor(hu: NDArray[Any], affine: NDArray[np.float64]) -> MetaTensor:
    """Return `hu` (slices, rows, columns) as MONAI wants it: (columns, rows, slices), RAS affine.

    `affine` (4, 4) takes (column, row, slice) indices to DICOM patient coordinates (LPS), mm.
    """
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    volume = torch.from_numpy(np.ascontiguousarray(hu.transpose(2, 1, 0), dtype=np.float32))
    meta = {"original_channel_dim": "no_channel"}
    return MetaTensor(volume, affine=torch.from_numpy(to_ras @ affine), meta=meta)


class Bundle:
    """Preprocessing, network and postprocessing of `configs/inference.json`."""

    def __init__(self, package: Path = PACKAGE) -> None:
        parser = ConfigParser()
        parser.read_config(package / "configs" / "inference.json")
        parser["device"] = "$torch.device('cpu')"
        steps = parser.get_parsed_content("preprocessing").transforms
        # The volume is in memory already; all other steps are used as they are.
        self.preprocessing = Compose([s for s in steps if not isinstance(s, LoadImaged)])
        self.network: torch.nn.Module = parser.get_parsed_content("network")
        self.inferer = parser.get_parsed_content("inferer")
        self.postprocessing = parser.get_parsed_content("postprocessing")
        for step in self.postprocessing.transforms:
            if hasattr(step, "transform"):
                step.transform = self.preprocessing
        self.weights = package / "models" / "model.pt"

    def load_weights(self) -> None:
        self.network.load_state_dict(torch.load(self.weights, weights_only=True))
        self.network.eval()

    @torch.inference_mode()
    def probabilities(
        self, hu: NDArray[Any], affine: NDArray[np.float64], *, on_source_grid: bool = True
    ) -> NDArray[np.float32]:
        """Return the bleeding's probability per voxel, (slices, rows, columns) on the grid of `hu`.

        Without `on_source_grid`, what comes back is the network's own grid, (x, y, z).
        """
        item = self.preprocessing({"image": to_meta_tensor(hu, affine)})
        item["pred"] = self.inferer(item["image"][None], self.network)[0]
        if not on_source_grid:
            return np.asarray(torch.sigmoid(item["pred"][0]).numpy(), dtype=np.float32)
        pred = self.postprocessing(item)["pred"][0]
        return np.asarray(pred.numpy().transpose(2, 1, 0), dtype=np.float32)
