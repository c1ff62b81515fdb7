"""Convolutional nets as lists of layers, with exact counts of weights, arithmetic and outputs.

`NETS` builds the usual ones at their published input size. A net of your own is a tuple of `Layer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Layer:
    """One product and the passes over its output.

    Attributes:
        name: For tables.
        in_channels, out_channels: Of the product.
        kernel: Height and width.
        stride: The same both ways.
        in_size, out_size: Height and width of the images; 1, 1 for a dense layer.
        normed, relu, added: Whether a batch norm, an activation, a sum with a second branch follows.
    """

    name: str
    in_channels: int
    out_channels: int
    kernel: Pair
    stride: int
    in_size: Pair
    out_size: Pair
    normed: bool = True
    relu: bool = True
    added: bool = False

    @property
    def weights(self) -> int:
        """Elements of the kernel; a norm replaces the bias."""
        return self.in_channels * self.out_channels * self.kernel[0] * self.kernel[1]

    @property
    def parameters(self) -> int:
        """Weights with bias, or with scale and shift of the norm."""
        return self.weights + self.out_channels * (2 if self.normed else 1)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image forward; one is two flop."""
        return self.weights * self.out_size[0] * self.out_size[1]

    @property
    def in_elements(self) -> int:
        """Of one image's input."""
        return self.in_channels * self.in_size[0] * self.in_size[1]

    @property
    def out_elements(self) -> int:
        """Of one image's output."""
        return self.out_channels * self.out_size[0] * self.out_size[1]


@dataclass(frozen=True, slots=True)
class ConvNet:
    """A named net; `NETS` has the usual ones.

    Attributes:
        name: For tables.
        layers: In the order in which they run.
        moved_elements: Read or written by pools, joins and forks in one training step of one image.
    """

    name: str
    layers: tuple[Layer, ...]
    moved_elements: int = 0

    @property
    def forward_flop(self) -> int:
        """Products of one image forward; two flop for each multiply-accumulate."""
        return 2 * sum(layer.macs for layer in self.layers)

    @property
    def training_flop(self) -> int:
        """Products of one image forward and backward; the first layer needs no gradient of its input."""
        return 3 * self.forward_flop - 2 * self.layers[0].macs

    @property
    def parameters(self) -> int:
        """Weights, biases, scales and shifts."""
        return sum(layer.parameters for layer in self.layers)

    def activation_bytes(self, element_bytes: int) -> int:
        """Return the bytes that the backward pass of one image needs: outputs of products, and of norms where there are."""
        return element_bytes * sum(layer.out_elements * (2 if layer.normed else 1) for layer in self.layers)


@dataclass
class _Tower:
    """A stack of layers that grows; knows the channels and size of its last output."""

    channels: int
    size: Pair
    layers: list[Layer] = field(default_factory=list)
    moved: list[int] = field(default_factory=list)

    @property
    def elements(self) -> int:
        """Of the last output of one image."""
        return self.channels * self.size[0] * self.size[1]

    def net(self, name: str) -> ConvNet:
        """Return what has grown."""
        return ConvNet(name, tuple(self.layers), sum(self.moved))

    def conv(
        self, out: int, kernel: int | Pair, stride: int = 1, pad: int | Pair | None = None, **marks: bool
    ) -> _Tower:
        """Add a convolution; without `pad` the size stays (divided by the stride)."""
        k = (kernel, kernel) if isinstance(kernel, int) else kernel
        around = ((k[0] - 1) // 2, (k[1] - 1) // 2) if pad is None else (pad, pad) if isinstance(pad, int) else pad
        to = ((self.size[0] + 2 * around[0] - k[0]) // stride + 1, (self.size[1] + 2 * around[1] - k[1]) // stride + 1)
        name = f"conv{len(self.layers) + 1} {k[0]}x{k[1]}"
        self.layers.append(Layer(name, self.channels, out, k, stride, self.size, to, **marks))
        self.channels, self.size = out, to
        return self

    def pool(self, kernel: int, stride: int, pad: int = 0) -> _Tower:
        """Add a pooling layer: no weights; forward and backward each read one end and write the other."""
        before = self.elements
        self.size = ((self.size[0] + 2 * pad - kernel) // stride + 1, (self.size[1] + 2 * pad - kernel) // stride + 1)
        self.moved.append(2 * (before + self.elements))
        return self

    def dense(self, out: int, relu: bool = False) -> _Tower:
        """Add a dense layer on everything there is."""
        width = self.elements
        self.layers.append(
            Layer(f"dense{len(self.layers) + 1}", width, out, (1, 1), 1, (1, 1), (1, 1), normed=False, relu=relu)
        )
        self.channels, self.size = out, (1, 1)
        return self

    def branch(self) -> _Tower:
        """Return a tower that starts where this one ends and writes into the same lists."""
        return _Tower(self.channels, self.size, self.layers, self.moved)

    def join(self, *branches: _Tower, pooled: bool = False) -> _Tower:
        """Go on from the branches side by side (`pooled`: and a pool of the input with stride 2).

        Copying them together and apart again is a read and a write each; the gradients of the fork are summed.
        """
        ways = len(branches) + pooled
        self.moved.append(3 * (ways - 1) * self.elements)
        if pooled:
            self.moved.append(2 * (self.elements + self.channels * branches[0].size[0] * branches[0].size[1]))
        self.channels = sum(branch.channels for branch in branches) + (self.channels if pooled else 0)
        self.size = branches[0].size
        self.moved.append(4 * self.elements)
        return self


def resnet(depth: int = 50, stride_in_3x3: bool = True) -> ConvNet:
    """Return ResNet-50, -101 or -152 for 224 x 224 images.

    Args:
        depth: 50, 101 or 152.
        stride_in_3x3: Version 1.5 (torchvision, NVIDIA, MLPerf); False: the first 1 x 1 of a block strides, as in the paper.

    Raises:
        KeyError: Another depth.

    Source: He et al. 2015 (arXiv:1512.03385), table 1.
    """
    blocks = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[depth]
    net = _Tower(3, (224, 224)).conv(64, 7, 2, 3).pool(3, 2, 1)
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            if not block:
                net.branch().conv(4 * width, 1, stride, relu=False)
            net.conv(width, 1, 1 if stride_in_3x3 else stride).conv(width, 3, stride if stride_in_3x3 else 1)
            net.conv(4 * width, 1, added=True)
    net.pool(7, 1).dense(1000)
    return net.net(f"ResNet-{depth}")


def vgg16() -> ConvNet:
    """Return VGG16 (configuration D) for 224 x 224 images. Source: Simonyan & Zisserman 2014 (arXiv:1409.1556), table 1."""
    net = _Tower(3, (224, 224))
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            net.conv(width, 3, normed=False)
        net.pool(2, 2)
    net.dense(4096, relu=True).dense(4096, relu=True).dense(1000)
    return net.net("VGG16")


def alexnet() -> ConvNet:
    """Return AlexNet in one tower for 224 x 224 images. Source: Krizhevsky 2014 (arXiv:1404.5997), as in torchvision."""
    net = _Tower(3, (224, 224)).conv(64, 11, 4, 2, normed=False).pool(3, 2).conv(192, 5, normed=False).pool(3, 2)
    net.conv(384, 3, normed=False).conv(256, 3, normed=False).conv(256, 3, normed=False).pool(3, 2)
    net.dense(4096, relu=True).dense(4096, relu=True).dense(1000)
    return net.net("AlexNet")


def inception_v3() -> ConvNet:
    """Return Inception v3 for 299 x 299 images, without the auxiliary head. Source: Szegedy et al. 2015 (arXiv:1512.00567)."""
    net = _Tower(3, (299, 299)).conv(32, 3, 2, 0).conv(32, 3, 1, 0).conv(64, 3).pool(3, 2)
    net.conv(80, 1).conv(192, 3, 1, 0).pool(3, 2)
    for pooled in (32, 64, 64):
        five = net.branch().conv(48, 1).conv(64, 5)
        double = net.branch().conv(64, 1).conv(96, 3).conv(96, 3)
        net.join(net.branch().conv(64, 1), five, double, net.branch().conv(pooled, 1))
    double = net.branch().conv(64, 1).conv(96, 3).conv(96, 3, 2, 0)
    net.join(net.branch().conv(384, 3, 2, 0), double, pooled=True)
    for width in (128, 160, 160, 192):
        seven = net.branch().conv(width, 1).conv(width, (1, 7)).conv(192, (7, 1))
        double = (
            net.branch().conv(width, 1).conv(width, (7, 1)).conv(width, (1, 7)).conv(width, (7, 1)).conv(192, (1, 7))
        )
        net.join(net.branch().conv(192, 1), seven, double, net.branch().conv(192, 1))
    seven = net.branch().conv(192, 1).conv(192, (1, 7)).conv(192, (7, 1)).conv(192, 3, 2, 0)
    net.join(net.branch().conv(192, 1).conv(320, 3, 2, 0), seven, pooled=True)
    for _ in range(2):
        three = net.branch().conv(384, 1)
        double = net.branch().conv(448, 1).conv(384, 3)
        halves = [tower.branch().conv(384, kernel) for tower in (three, double) for kernel in ((1, 3), (3, 1))]
        net.join(net.branch().conv(320, 1), *halves, net.branch().conv(192, 1))
    net.pool(8, 1).dense(1000)
    return net.net("InceptionV3")


#: How published rows call a net -> what builds it.
NETS: Mapping[str, Callable[[], ConvNet]] = MappingProxyType(
    {
        "ResNet-50": resnet,
        "ResNet-101": lambda: resnet(101),
        "ResNet-152": lambda: resnet(152),
        "VGG16": vgg16,
        "AlexNet": alexnet,
        "InceptionV3": inception_v3,
    }
)
