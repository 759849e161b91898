"""The ResNet-20 for CIFAR-10 of He et al. (2016), section 4.2, with parameter-free shortcuts (option A).

Not part of torchvision: it stands here as an architecture that a user brings, as in
`python:tests/models/resnet20.py:resnet20`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Two convolutions beside a shortcut that drops every second position and adds empty channels."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        """Make the two convolutions."""
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.stride = stride
        self.added = (after - before) // 2

    def forward(self, image: Tensor) -> Tensor:
        """Their sum, rectified."""
        way = functional.relu(self.bn1(self.conv1(image)))
        way = self.bn2(self.conv2(way))
        shortcut = image
        if self.added:
            shortcut = functional.pad(image[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added, self.added))
        return functional.relu(way + shortcut)


class ResNet20(nn.Module):
    """Three stages of three blocks."""

    input_shape = (3, 32, 32)
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(self, num_classes: int) -> None:
        """Make the stages."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1), Block(16, 16, 1))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        maps = functional.relu(self.bn1(self.conv1(image)))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        return self.linear(maps.mean((2, 3)))


def resnet20(num_classes: int = 10) -> ResNet20:
    """The network with random weights."""
    return ResNet20(num_classes)
