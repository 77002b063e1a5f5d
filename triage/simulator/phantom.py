"""A drawing that looks a little like a frontal chest radiograph: no patient, no anatomy to read.

For tests, the demonstration and the regression samples of model packages, where a patient's
picture may not be put.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Plane = NDArray[np.float64]


def draw_chest(size: int, seed: int = 0) -> NDArray[np.uint16]:
    """Return a (size, size) picture of 12 bits, bright where dense, the same for equal arguments.

    Two dark lung fields with ribs, a bright spine, heart and abdomen on a trunk before a dark
    background; `seed` moves their outlines by a few percent and draws the noise.
    """
    generator = np.random.default_rng(seed)
    down, across = np.mgrid[0:size, 0:size] / (size - 1) * 2 - 1
    shift = generator.normal(0, 0.02, size=6)
    density = np.zeros((size, size))
    trunk = _ellipse(down, across, (0.55, 0.0), (1.4, 0.88 + shift[0]), power=4)
    trunk = np.maximum(trunk, _ellipse(down, across, (-0.8, 0.0), (0.5, 0.22)))
    density += 0.55 * trunk
    for side, edge in ((-1, shift[1]), (1, shift[2])):
        lung = _ellipse(down, across, (-0.1 + edge, 0.4 * side), (0.68, 0.31 + edge / 2))
        density -= 0.38 * lung
        density += 0.1 * _ribs(down, across * side) * lung
        density += 0.1 * _stripe(down + 0.72 - 0.16 * np.abs(across), 0.03) * trunk
    density += 0.3 * _stripe(across - shift[3] / 2, 0.1) * trunk
    density += 0.28 * _ellipse(down, across, (0.25 + shift[4], 0.17), (0.32, 0.3 + shift[5]))
    density += 0.32 * _ellipse(down, across, (1.05, 0.0), (0.55, 0.8))
    smooth = gaussian_filter(density, size / 90)
    noisy = smooth + generator.normal(0, 0.008, size=smooth.shape)
    scaled = np.clip((noisy + 0.05) / 1.15, 0.0, 1.0)
    return np.round(scaled * 4095).astype(np.uint16)


def _ellipse(
    down: Plane,
    across: Plane,
    centre: tuple[float, float],
    radii: tuple[float, float],
    *,
    power: int = 2,
) -> Plane:
    inside = ((down - centre[0]) / radii[0]) ** power + (
        (across - centre[1]) / radii[1]
    ) ** power < 1
    return inside.astype(np.float64)


def _stripe(distance: Plane, width: float) -> Plane:
    return np.exp(-((distance / width) ** 2))


def _ribs(down: Plane, outwards: Plane) -> Plane:
    # Posterior ribs fall outwards, about nine of them over the lung.
    return np.clip(np.sin((down - 0.35 * outwards) * 2 * np.pi / 0.17), 0.0, 1.0)
