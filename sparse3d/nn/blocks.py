"""Containers, activations, residual blocks and the way from sparse to dense."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from sparse3d.nn.conv import Size, SparseConv3d, SubMConv3d
from sparse3d.nn.norm import BatchNorm
from sparse3d.tensor import SparseTensor


def call(module: nn.Module, x):
    """Run a module on a sparse tensor: torch's own (point-wise) modules act on the features.

    What counts as torch's own is where its class is defined; anything else gets the sparse tensor itself.
    """
    if not isinstance(x, SparseTensor) or not _acts_on_features(module):
        return module(x)
    return x.replace(module(x.features))


def _acts_on_features(module: nn.Module) -> bool:
    if isinstance(module, (nn.Sequential, nn.ModuleList)):
        return all(_acts_on_features(child) for child in module)
    return type(module).__module__.startswith("torch.nn.modules")


class Sequential(nn.Sequential):
    """A chain of sparse and plain modules: `Sequential(SubMConv3d(4, 16), nn.ReLU(), ToDense(),
    nn.Conv3d(16, 8, 3))`."""

    def forward(self, input):
        for module in self:
            input = call(module, input)
        return input


class _Pointwise(nn.Module):
    """An activation of torch on the features of a sparse tensor."""

    def __init__(self, function: Callable[[Tensor], Tensor] | nn.Module):
        super().__init__()
        self.function = function

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.replace(self.function(x.features))


class ReLU(_Pointwise):
    def __init__(self):
        super().__init__(nn.ReLU())


class LeakyReLU(_Pointwise):
    def __init__(self, negative_slope: float = 0.01):
        super().__init__(nn.LeakyReLU(negative_slope))


class GELU(_Pointwise):
    def __init__(self):
        super().__init__(nn.GELU())


class SiLU(_Pointwise):
    def __init__(self):
        super().__init__(nn.SiLU())


class Sigmoid(_Pointwise):
    def __init__(self):
        super().__init__(nn.Sigmoid())


class Tanh(_Pointwise):
    def __init__(self):
        super().__init__(nn.Tanh())


class Dropout(_Pointwise):
    def __init__(self, p: float = 0.5):
        super().__init__(nn.Dropout(p))


class Linear(_Pointwise):
    """A linear map of each voxel's features: a 1x1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True):
        super().__init__(nn.Linear(in_channels, out_channels, bias))


class ConvBlock(Sequential):
    """Convolution, batch norm, ReLU. `eps` and `momentum` default to the LiDAR detectors' 1e-3 and 0.01."""

    def __init__(self, convolution: nn.Module, channels: int, eps: float = 1e-3, momentum: float = 0.01):
        super().__init__(convolution, BatchNorm(channels, eps, momentum), ReLU())


class ResidualBlock(nn.Module):
    """SubM - BN - ReLU - SubM - BN, plus the input, ReLU (He et al., arXiv 1512.03385, on submanifolds).

    `bias` belongs to the convolutions. A change of channels puts a 1x1x1 convolution on the shortcut.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int | None = None,
        kernel_size: Size = 3,
        bias: bool = False,
        eps: float = 1e-3,
        momentum: float = 0.01,
    ):
        super().__init__()
        width = out_channels or channels
        self.first = ConvBlock(SubMConv3d(channels, width, kernel_size, bias=bias), width, eps, momentum)
        self.second = Sequential(
            SubMConv3d(width, width, kernel_size, bias=bias), BatchNorm(width, eps, momentum)
        )
        self.shortcut = (
            nn.Identity()
            if width == channels
            else Sequential(SubMConv3d(channels, width, 1, bias=False), BatchNorm(width, eps, momentum))
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        out = self.second(self.first(x))
        return out.replace((out.features + self.shortcut(x).features).relu())


class DownBlock(ConvBlock):
    """Strided convolution (kernel 3, padding 1), batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: Size = 2, padding: Size = 1):
        super().__init__(
            SparseConv3d(in_channels, out_channels, 3, stride, padding, bias=False), out_channels
        )


class ToDense(nn.Module):
    """Sparse tensor to volume: (B, C, X, Y, Z), zeros where there is no voxel."""

    def forward(self, x: SparseTensor) -> Float[Tensor, "B C X Y Z"]:
        return x.dense()


class ToBEV(nn.Module):
    """Sparse tensor to bird's-eye map: (B, C * Z, X, Y), height folded into channels (c * Z + z)."""

    def forward(self, x: SparseTensor) -> Float[Tensor, "B CZ X Y"]:
        if x.shape is None:
            raise ValueError("a bird's-eye map needs a bounded grid; build the tensor with shape=(X, Y, Z)")
        return x.dense().permute(0, 1, 4, 2, 3).flatten(1, 2)
