"""Smooth random fields, separable resampling and CT noise on regular grids.

Everything is float32 and separable: a field on a coarse lattice becomes a field on the image grid
by three small matrix products, an order of magnitude faster than `scipy.ndimage.zoom`.
"""

from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Volume = NDArray[np.float32]


def apply_along_axes(volume: Volume, matrices: Sequence[NDArray[np.float32] | None]) -> Volume:
    """Multiply each axis of `volume` by its matrix (new size, size); None leaves it alone."""
    first, second, third = matrices
    if first is not None:
        flat = first @ volume.reshape(volume.shape[0], -1)
        volume = flat.reshape(-1, *volume.shape[1:])
    if second is not None:
        volume = second @ volume
    if third is not None:
        volume = volume @ third.T
    return np.ascontiguousarray(volume, dtype=np.float32)


def bspline_matrix(size: int, step: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return (size, knots) cubic B-spline weights of `size` points, `step` knots apart each.

    The lattice starts at a random phase, so that fields of several volumes share no knots. Rows
    are scaled to unit sum of squares: white noise of variance 1 stays of variance 1.
    """
    position = np.arange(size) * step + rng.uniform(1.0, 2.0)
    knots = np.arange(int(np.ceil(position[-1])) + 3)
    t = np.abs(position[:, None] - knots[None, :])
    weights = np.where(
        t < 1, 2 / 3 - t**2 + t**3 / 2, np.where(t < 2, (2 - np.minimum(t, 2)) ** 3 / 6, 0)
    )
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    return np.asarray(weights, dtype=np.float32)


def smooth_field(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    scale_mm: float,
) -> Volume:
    """Return a Gaussian random field of mean 0 and variance 1 that varies over about `scale_mm`."""
    matrices = [
        bspline_matrix(n, s / scale_mm, rng) for n, s in zip(shape, spacing_mm, strict=True)
    ]
    knots = rng.standard_normal([m.shape[1] for m in matrices], dtype=np.float32)
    return apply_along_axes(knots, matrices)


def linear_matrix(size: int, source_size: int) -> NDArray[np.float32]:
    """Return (size, source_size) linear interpolation weights between pixel grids of one extent."""
    position = (np.arange(size) + 0.5) * source_size / size - 0.5
    position = np.clip(position, 0, source_size - 1)
    weights = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(source_size)[None, :]))
    return np.asarray(weights, dtype=np.float32)


def blur_matrix(size: int, sigma: float) -> NDArray[np.float32]:
    """Return (size, size) Gaussian blur of `sigma` pixels, rows of unit sum."""
    index = np.arange(size)
    weights = np.exp(-0.5 * ((index[:, None] - index[None, :]) / max(sigma, 1e-3)) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def mean_matrix(size: int, group: int) -> NDArray[np.float32]:
    """Return (size, size * group) weights that average `group` neighbours: slice thickness."""
    return np.asarray(np.kron(np.eye(size), np.full((1, group), 1 / group)), dtype=np.float32)


def ct_noise(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    pixel_mm: tuple[float, float],
    cutoff_per_mm: float,
) -> Volume:
    """Return noise (slices, rows, columns) of unit spectral level per mm, correlated as in CT.

    Filtered back projection leaves a noise power that rises with frequency (the ramp) until the
    kernel's roll-off takes it down; the constant floor is what interpolation and scatter add.
    The spectrum depends on physical frequency: averaged to coarse pixels, fine and coarse volumes
    have the same noise. The result has standard deviation 1 on pixels of 0.5 mm.
    """
    slices, rows, columns = shape

    def amplitude(ky: NDArray[np.float64], kx: NDArray[np.float64]) -> NDArray[np.float64]:
        k = np.hypot(ky, kx) / cutoff_per_mm
        return np.asarray(np.sqrt(k + 0.04) * np.exp(-(k**2)))

    ky = scipy.fft.fftfreq(rows, pixel_mm[0])[:, None]
    kx = scipy.fft.rfftfreq(columns, pixel_mm[1])[None, :]
    reference = amplitude(
        scipy.fft.fftfreq(128, 0.5)[:, None], scipy.fft.fftfreq(128, 0.5)[None, :]
    )
    density_at_unit_std = np.sqrt(np.mean(reference**2)) / 0.5  # of white noise, per mm
    pixel = np.sqrt(pixel_mm[0] * pixel_mm[1])
    gain = amplitude(ky, kx) / density_at_unit_std / pixel * np.sqrt(rows * columns / 2)
    half = (slices, rows, columns // 2 + 1)
    spectrum = rng.standard_normal((*half, 2), dtype=np.float32).view(np.complex64)[..., 0]
    spectrum *= gain.astype(np.float32)
    noise = scipy.fft.irfft2(spectrum, s=(rows, columns), axes=(1, 2))
    return np.asarray(noise, dtype=np.float32)
