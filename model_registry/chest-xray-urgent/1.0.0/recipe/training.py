"""Training of one late network on cached early features, with augmentation and mixup."""

from dataclasses import dataclass

import torch
from classifier import LateNetwork, normalize
from dataset import FINDINGS
from efficientnet_lite import EfficientNetLite0
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

# Reported findings and "urgent" come first among the targets.
REPORTED = len(FINDINGS) + 1


@dataclass(frozen=True)
class Settings:
    """What was tried on folds 1 to 4 and kept; the README says what was tried and left."""

    size: int = 224
    # Blocks that stay as ImageNet left them; what they give is computed once for each view.
    frozen_blocks: int = 8
    # Augmented views of each image that are cached beside the image and its mirror image.
    views: int = 10
    epochs: int = 20
    batch: int = 32
    body_rate: float = 3e-4
    head_rate: float = 3e-3
    weight_decay: float = 0.05
    dropout: float = 0.3
    mixup: float = 0.4
    auxiliary_weight: float = 0.5
    average_decay: float = 0.99
    seed: int = 2024


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return (n, 1, h, w) turned, scaled, shifted, mirrored and changed in gamma and contrast.

    Up to 10 degrees, 15 % and 8 % of the half side: what positioning and processing differ by.
    """
    count = len(images)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * 2 - 1

    angle, scale = uniform() * 0.17, 0.97 + uniform() * 0.12
    aspect = 1 + uniform() * 0.08
    mirror = torch.where(uniform() < 0, -1.0, 1.0)
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0] = scale * aspect * angle.cos() * mirror
    matrix[:, 1, 0] = angle.sin() * mirror
    matrix[:, 0, 1] = -angle.sin()
    matrix[:, 1, 1] = scale * angle.cos()
    matrix[:, :, 2] = uniform(2) * 0.08
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, align_corners=False, padding_mode="zeros")
    bent = moved.clamp(1e-4, 1.0) ** torch.exp(uniform(1, 1, 1) * 0.35)
    contrast, brightness = 1 + uniform(1, 1, 1) * 0.2, uniform(1, 1, 1) * 0.1
    return ((bent - 0.5) * contrast + 0.5 + brightness).clamp(0.0, 1.0)


def early_features(backbone: EfficientNetLite0, images: Tensor, blocks: int) -> Tensor:
    """Return what the frozen blocks give for (n, 1, h, w), in bfloat16 to save memory."""
    results = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for chunk in images.split(16):
            batch = normalize(chunk).contiguous(memory_format=torch.channels_last)
            results.append(backbone.early(batch, blocks).to(torch.bfloat16))
    return torch.cat(results)


def cache_views(backbone: EfficientNetLite0, images: Tensor, settings: Settings) -> Tensor:
    """Return the early features (2 + views, n, c, h, w) of images, mirror images and views."""
    generator = torch.Generator().manual_seed(settings.seed)
    versions = [images, images.flip(3)]
    versions += [augment(images, generator) for _ in range(settings.views)]
    return torch.stack([early_features(backbone, v, settings.frozen_blocks) for v in versions])


def _optimizer(
    network: LateNetwork, settings: Settings, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    head = list(network.linear.parameters())
    body = [p for name, p in network.named_parameters() if not name.startswith("linear.")]
    groups = [{"params": body}, {"params": head}]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [settings.body_rate, settings.head_rate], total_steps=steps, pct_start=0.2
    )
    return optimizer, schedule


def _mixed(features: Tensor, targets: Tensor, mixup: float) -> tuple[Tensor, Tensor]:
    # Zhang et al., ICLR 2018, on the cached features (Verma et al., ICML 2019).
    shares = torch.distributions.Beta(mixup, mixup).sample((len(targets),))
    shares = torch.maximum(shares, 1 - shares)
    other = torch.randperm(len(targets))
    wide = shares[:, None, None, None]
    features = features * wide + features[other] * (1 - wide)
    return features, targets * shares[:, None] + targets[other] * (1 - shares[:, None])


def train_network(
    backbone: EfficientNetLite0,
    views: Tensor,
    targets: Tensor,
    rows: Tensor,
    *,
    settings: Settings,
    seed: int,
) -> LateNetwork:
    """Train on the images `rows` and return the moving average of the network."""
    torch.manual_seed(seed)
    network = LateNetwork(backbone, settings.frozen_blocks, targets[rows].mean(0))
    network = network.to(memory_format=torch.channels_last).train()
    network.dropout = settings.dropout
    for module in network.modules():
        # Batches of 32 from 300 images give poor statistics; ImageNet's are kept.
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    weights = torch.full((targets.shape[1],), settings.auxiliary_weight)
    weights[:REPORTED] = 1.0
    batches = len(rows) // settings.batch
    optimizer, schedule = _optimizer(network, settings, settings.epochs * batches)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.average_decay))
    for _ in range(settings.epochs):
        order = rows[torch.randperm(len(rows))][: batches * settings.batch]
        for chosen in order.split(settings.batch):
            version = torch.randint(len(views), (len(chosen),))
            batch = views[version, chosen].float()
            batch, wanted = _mixed(batch, targets[chosen], settings.mixup)
            logits = network(batch.contiguous(memory_format=torch.channels_last))
            losses = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
            loss = (losses * weights).sum(1).mean() / weights.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(network)
    trained = average.module
    assert isinstance(trained, LateNetwork)
    return trained.eval()


def predict(network: LateNetwork, views: Tensor) -> Tensor:
    """Return the logits (n, outputs), averaged over the image and its mirror image."""
    with torch.no_grad():
        return torch.stack(
            [torch.cat([network(c.float()) for c in version.split(32)]) for version in views[:2]]
        ).mean(0)
