"""The network that is trained, and the program that is shipped.

Trained: the late part of EfficientNet-Lite0 with one linear layer over globally averaged features
of two depths. Shipped: several such networks on one common early part, averaged over both mirror
images, calibrated, with a class activation map for every output.
"""

import copy
from collections.abc import Sequence

import torch
from efficientnet_lite import (
    HEAD_CHANNELS,
    PIXEL_DEVIATION,
    PIXEL_MEAN,
    EfficientNetLite0,
    InvertedResidual,
)
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

# Block whose output, stride 16, is the second depth that the linear layer sees.
MIDDLE_BLOCK = 10
MIDDLE_CHANNELS = 112
# Layers with this many channels are stored in bytes.
WIDE = 1000


def normalize(images: Tensor) -> Tensor:
    """Turn (n, 1, h, w) in [0, 1] into the backbone's (n, 3, h, w)."""
    return ((images - PIXEL_MEAN) / PIXEL_DEVIATION).expand(-1, 3, -1, -1)


class LateNetwork(nn.Module):
    """Blocks from `first_block` on, the head and the linear layer; trained.

    Input: what `EfficientNetLite0.early` returned. Output: logits (n, outputs).
    """

    def __init__(self, backbone: EfficientNetLite0, first_block: int, rates: Tensor) -> None:
        super().__init__()
        whole = copy.deepcopy(backbone)
        self.first_block = first_block
        self.blocks = whole._blocks[first_block:]
        self.head_conv = whole._conv_head
        self.head_norm = whole._bn1
        self.linear = nn.Linear(HEAD_CHANNELS + MIDDLE_CHANNELS, len(rates))
        self.dropout = 0.0
        # Starting from the rates of the training set, no step is spent on learning them.
        nn.init.zeros_(self.linear.weight)
        with torch.no_grad():
            self.linear.bias.copy_(torch.logit(rates.clamp(0.01, 0.99)))

    def features(self, early: Tensor) -> tuple[Tensor, Tensor]:
        """Return the head's (n, 1280, h, w) and the middle's (n, 112, 2h, 2w)."""
        hidden, middle = early, early
        for index, block in enumerate(self.blocks, self.first_block):
            hidden = block(hidden)
            if index == MIDDLE_BLOCK:
                middle = hidden
        return functional.relu6(self.head_norm(self.head_conv(hidden))), middle

    def forward(self, early: Tensor) -> Tensor:
        head, middle = self.features(early)
        pooled = torch.cat([head.mean((2, 3)), middle.mean((2, 3))], dim=1)
        logits: Tensor = self.linear(functional.dropout(pooled, self.dropout, self.training))
        return logits


class StoredConv2d(nn.Module):
    """A convolution with its batch norm folded in, and its weight stored in few bytes.

    Half precision, and one byte with a scale for each channel in the layers of 1000 and more
    channels, which hold half of all weights. Measured: bytes in every layer move the logits by a
    third of their spread over patients, in these layers by a fortieth, half precision by a
    hundredth. Sums are taken in single precision.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, *, activates: bool) -> None:
        super().__init__()
        fused = fuse_conv_bn_eval(conv, norm)
        assert fused.bias is not None
        weight, scale = fused.weight.detach().float(), torch.ones(1)
        if conv.out_channels >= WIDE:
            scale = weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12) / 127
            stored = torch.round(weight / scale).to(torch.int8)
        else:
            stored = weight.half()
        self.register_buffer("weight", stored)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", fused.bias.detach().float())
        self.stride = conv.stride[0]
        self.groups = conv.groups
        self.total_padding = conv.kernel_size[0] - self.stride
        self.activates = activates

    def forward(self, features: Tensor) -> Tensor:
        before = self.total_padding // 2
        after = self.total_padding - before
        if after:
            features = functional.pad(features, (before, after, before, after))
        weight = self.weight.float() * self.scale
        features = functional.conv2d(features, weight, self.bias, self.stride, 0, 1, self.groups)
        return functional.relu6(features) if self.activates else features


class StoredBlock(nn.Module):
    """An inverted residual block of `StoredConv2d`s."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        assert isinstance(block, InvertedResidual)
        layers = []
        if block.expands:
            layers.append(StoredConv2d(block._expand_conv, block._bn0, activates=True))
        layers.append(StoredConv2d(block._depthwise_conv, block._bn1, activates=True))
        layers.append(StoredConv2d(block._project_conv, block._bn2, activates=False))
        self.layers = nn.Sequential(*layers)
        self.skips = block.skips

    def forward(self, features: Tensor) -> Tensor:
        hidden: Tensor = self.layers(features)
        return features + hidden if self.skips else hidden


class _Member(nn.Module):
    """One trained network, giving a map of logits: their mean over the map is the logit."""

    weight: Tensor
    bias: Tensor

    def __init__(self, network: LateNetwork, outputs: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(StoredBlock(block) for block in network.blocks)
        self.middle_index = MIDDLE_BLOCK - network.first_block
        self.head = StoredConv2d(network.head_conv, network.head_norm, activates=True)
        chosen = list(outputs)
        self.register_buffer("weight", network.linear.weight.detach()[chosen, :, None, None])
        self.register_buffer("bias", network.linear.bias.detach()[chosen])

    def forward(self, early: Tensor) -> tuple[Tensor, Tensor]:
        hidden, middle = early, early
        for index, block in enumerate(self.blocks):
            hidden = block(hidden)
            if index == self.middle_index:
                middle = hidden
        deep = functional.conv2d(self.head(hidden), self.weight[:, :HEAD_CHANNELS])
        fine = functional.conv2d(middle, self.weight[:, HEAD_CHANNELS:])
        # Averages are taken before the deep map is enlarged: enlarging does not keep its mean.
        logits = deep.mean((2, 3)) + fine.mean((2, 3)) + self.bias
        size = (fine.shape[2], fine.shape[3])
        enlarged = functional.interpolate(deep, size=size, mode="bilinear", align_corners=False)
        return logits, enlarged + fine


class UrgentClassifier(nn.Module):
    """The shipped program: one image to probabilities and heat maps.

    Input: float32 (1, 1, size, size) in [0, 1]. Output: probabilities (1, outputs), and heat maps
    (1, outputs, size / 16, size / 16) in [0, 1], each scaled to its own greatest value. For a
    linear layer on a global average, Grad-CAM (Selvaraju et al., ICCV 2017) is the rectified
    class activation map (Zhou et al., CVPR 2016), so no gradient is needed.
    """

    slope: Tensor
    offset: Tensor

    def __init__(
        self,
        backbone: EfficientNetLite0,
        networks: Sequence[LateNetwork],
        outputs: Sequence[int],
        calibration: Tensor,
    ) -> None:
        super().__init__()
        early = backbone._blocks[: networks[0].first_block]
        self.stem = StoredConv2d(backbone._conv_stem, backbone._bn0, activates=True)
        self.early = nn.Sequential(*(StoredBlock(block) for block in early))
        self.members = nn.ModuleList(_Member(network, outputs) for network in networks)
        self.register_buffer("slope", calibration[:, 0].float().clone())
        self.register_buffer("offset", calibration[:, 1].float().clone())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        pair = torch.cat([image, image.flip(3)])
        early = self.early(self.stem(normalize(pair)))
        answers = [member(early) for member in self.members]
        logits = torch.stack([answer[0] for answer in answers]).mean((0, 1))
        maps = torch.stack([answer[1] for answer in answers]).mean(0)
        heat = functional.relu((maps[0] + maps[1].flip(2)) / 2)
        heat = heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-6)
        probabilities = torch.sigmoid(logits * self.slope + self.offset)
        return probabilities[None], heat[None]
