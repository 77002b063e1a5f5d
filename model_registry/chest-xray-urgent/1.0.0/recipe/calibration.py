"""Platt scaling of logits to probabilities."""

import torch
from torch import Tensor
from torch.nn import functional


def fit_platt(logits: Tensor, truth: Tensor) -> Tensor:
    """Return (outputs, 2): the slope and offset that make sigmoid(slope * logit + offset) fit.

    Platt's smoothed targets (Advances in Large Margin Classifiers, 1999) keep an output with few
    positive cases from becoming certain. A slope is never negative: a finding that cannot be
    ranked gets a flat probability, not a reversed one.
    """
    positives, negatives = truth.sum(0), (1 - truth).sum(0)
    high, low = (positives + 1) / (positives + 2), 1 / (negatives + 2)
    wanted = truth * high + (1 - truth) * low
    log_slope = torch.zeros(logits.shape[1], requires_grad=True)
    offset = torch.zeros(logits.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([log_slope, offset], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        slope = log_slope.clamp(-3.0, 2.0).exp()
        loss = functional.binary_cross_entropy_with_logits(logits * slope + offset, wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss)

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return torch.stack([log_slope.detach().clamp(-3.0, 2.0).exp(), offset.detach()], dim=1)


def apply_platt(logits: Tensor, calibration: Tensor) -> Tensor:
    """Return the probabilities of (n, outputs) logits."""
    return torch.sigmoid(logits * calibration[:, 0] + calibration[:, 1])
