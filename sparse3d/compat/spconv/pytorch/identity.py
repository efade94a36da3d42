"""The layer that does nothing."""

from typing import Any

from torch import nn


class Identity(nn.Module):
    """The input, whatever it is."""

    def forward(self, input: Any) -> Any:
        return input

    def input_spatial_size(self, out_size: Any) -> Any:
        return out_size
