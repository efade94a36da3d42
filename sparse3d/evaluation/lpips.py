"""LPIPS: the distance of two pictures in the features of a classifier (Zhang et al., arXiv 1801.03924).

    d = sum over layers l of mean over pixels of sum over channels c of w_lc (f_lc(x) - f_lc(y))^2

with the features of each pixel normed to length 1. Weights are never downloaded: both files are named by
whoever has them, the classifier's (torchvision's alexnet or vgg16 state dict) and the w_l of the paper's
release v0.1 (`lin0.model.1.weight`, ...), as .pth, read without unpickling objects, or .safetensors. They may
be one file.
"""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse3d.errors import DataError
from sparse3d.io.weight_files import read_tensors


class _Conv(NamedTuple):
    """A convolution with a ReLU: channels, kernel, stride, padding; `pool` is the kernel of a max pooling by
    2 before it (0: none); `tap`: its output is compared."""

    channels: int
    kernel: int
    stride: int
    padding: int
    pool: int
    tap: bool


_ALEX = (
    _Conv(64, 11, 4, 2, 0, True),
    _Conv(192, 5, 1, 2, 3, True),
    _Conv(384, 3, 1, 1, 3, True),
    _Conv(256, 3, 1, 1, 0, True),
    _Conv(256, 3, 1, 1, 0, True),
)
# (channels, number of convolutions) of VGG's blocks; the last of each block is compared.
_VGG = tuple(
    _Conv(channels, 3, 1, 1, 2 if block and not i else 0, i == count - 1)
    for block, (channels, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)))
    for i in range(count)
)
_NETWORKS = {"alex": _ALEX, "vgg": _VGG}

# The release's scaling of pictures in [-1, 1]: ImageNet's mean and spread, carried over from [0, 1].
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_EPSILON = 1e-10


class Lpips(nn.Module):
    """LPIPS with the network `alex` (what papers on view synthesis print, or `vgg`: never mix them)."""

    def __init__(self, network: Literal["alex", "vgg"] = "alex"):
        super().__init__()
        self.layers = _NETWORKS[network]
        self.convs, self.weights = nn.ModuleList(), nn.ParameterList()
        channels = 3
        for layer in self.layers:
            self.convs.append(nn.Conv2d(channels, layer.channels, layer.kernel, layer.stride, layer.padding))
            channels = layer.channels
            if layer.tap:
                self.weights.append(nn.Parameter(torch.ones(channels)))
        self.requires_grad_(False)
        self.eval()

    @staticmethod
    def load(classifier: str | Path, linear: str | Path, network: Literal["alex", "vgg"] = "alex") -> "Lpips":
        """With the weights of two files (or one, given twice). DataError for files that do not fit."""
        module = Lpips(network)
        features, lin = read_tensors(classifier), read_tensors(linear)
        stems = sorted(
            {name.rsplit(".", 1)[0] for name in features if name.startswith("features.")}, key=_place
        )
        if len(stems) != len(module.layers):
            raise DataError(
                classifier, f"has {len(stems)} layers called features.N, {network} has {len(module.layers)}"
            )
        for conv, stem in zip(module.convs, stems, strict=True):
            assert isinstance(conv, nn.Conv2d)
            for name, own in (("weight", conv.weight), ("bias", conv.bias)):
                assert own is not None
                _copy(own, features.get(f"{stem}.{name}"), Path(classifier), f"{stem}.{name}")
        for number, own in enumerate(module.weights):
            name = f"lin{number}.model.1.weight"
            found = lin.get(name)
            _copy(own, None if found is None else found.flatten(), Path(linear), name)
        return module

    @torch.no_grad()
    def __call__(self, predicted: np.ndarray, target: np.ndarray) -> float:
        """Pictures (H, W, 3) in [0, 1] -> the distance; 0 for equal ones. At least 32 pixels a side."""
        device = self.weights[0].device
        pair = np.stack([predicted, target]).astype(np.float32)
        return float(self.distance(torch.from_numpy(pair).to(device).permute(0, 3, 1, 2)))

    def distance(self, pair: Tensor) -> Tensor:
        """(2, 3, H, W) in [0, 1] -> () the distance of the two, with gradients."""
        if pair.shape[:2] != (2, 3) or min(pair.shape[2:]) < 32:
            raise ValueError(f"pictures are {tuple(pair.shape)}, expected (2, 3, H, W) of at least 32 x 32")
        x = ((2 * pair - 1) - pair.new_tensor(_SHIFT)[:, None, None]) / pair.new_tensor(_SCALE)[:, None, None]
        total = pair.new_zeros(())
        taps = iter(self.weights)
        for layer, conv in zip(self.layers, self.convs, strict=True):
            if layer.pool:
                x = F.max_pool2d(x, layer.pool, 2)
            x = F.relu(conv(x))
            if layer.tap:
                normed = x / (x.square().sum(1, keepdim=True).sqrt() + _EPSILON)
                difference = (normed[0] - normed[1]).square()
                total = total + (difference * next(taps)[:, None, None]).sum(0).mean()
        return total


def _place(stem: str) -> int:
    number = stem.removeprefix("features.")
    return int(number) if number.isdigit() else -1


def _copy(own: Tensor, found: Tensor | None, path: Path, name: str) -> None:
    if found is None or found.shape != own.shape:
        what = "is not there" if found is None else f"is {tuple(found.shape)}"
        raise DataError(path, f"{name} {what}, expected {tuple(own.shape)}; weights of another network?")
    with torch.no_grad():
        own.copy_(found)
