"""`from_numpy` and the fused activations. A tensor view is a torch tensor here: it has `.numpy()`, too."""

from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor


def from_numpy(array: np.ndarray) -> Tensor:
    """The array as a tensor on the same memory."""
    return torch.from_numpy(np.ascontiguousarray(array))


class _Activation(Enum):
    None_ = 0
    ReLU = 1
    Sigmoid = 2
    LeakyReLU = 3


class gemm:  # lower case: cumm's own name
    """Namespace of the activations that a convolution ends with."""

    Activation = _Activation

    @staticmethod
    def activate(features: Tensor, activation: Any, alpha: float) -> Tensor:
        """Apply one of `Activation`, or of cumm's own enumeration, which has the same names."""
        name = activation.name
        if name == "None_":
            return features
        if name == "ReLU":
            return features.relu()
        if name == "Sigmoid":
            return features.sigmoid()
        if name == "LeakyReLU":
            return torch.nn.functional.leaky_relu(features, alpha)
        raise ValueError(
            f"act_type is {activation}, expected one of {', '.join(a.name for a in _Activation)}"
        )
