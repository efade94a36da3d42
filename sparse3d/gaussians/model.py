"""A cloud that is trained: parameters whose rows come and go, and take the optimiser's memory along.

`rows` are Gaussians. A row that stays keeps its values, its moments in the optimiser and what was counted of
it; a new row has zero moments and zero counts. Every edit gives the same bits for any number of threads.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparse3d.gaussians.cloud import GaussianCloud

PARAMETERS = ("means", "scales", "quats", "opacities", "sh0", "shN")
_COUNTED = "statistics."


class SplatModel(nn.Module):
    """Parameters of a cloud under gsplat's names; `cloud` is them as one.

    `scene_scale`: metres, the reach of the cameras around what they look at; strategies and learning rates
    count lengths in it. `seed`: of everything that strategies draw. `statistics` holds one row a Gaussian of
    what strategies count. All of it is part of the state, so a run that is resumed goes on with the same
    bits.
    """

    means: nn.Parameter
    scales: nn.Parameter
    quats: nn.Parameter
    opacities: nn.Parameter
    sh0: nn.Parameter
    shN: nn.Parameter
    statistics: nn.Module
    scene_scale: Tensor
    seed: Tensor

    def __init__(self, cloud: GaussianCloud, scene_scale: float = 1.0, seed: int = 0):
        super().__init__()
        if not scene_scale > 0:
            raise ValueError(f"scene_scale must be above 0 metres, got {scene_scale}")
        for name, value in cloud.parameters().items():
            setattr(self, name, nn.Parameter(value.detach().clone()))
        self.statistics = nn.Module()
        self.register_buffer("scene_scale", torch.tensor(scene_scale, dtype=torch.float64))
        self.register_buffer("seed", torch.tensor(seed, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.means)

    @property
    def cloud(self) -> GaussianCloud:
        """The parameters themselves, with their gradients."""
        return GaussianCloud.of({name: getattr(self, name) for name in PARAMETERS})

    def counted(self, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """The statistic of that name, (N,), made of zeros when it is first asked for; write to it in
        place."""
        if name not in self.statistics._buffers:
            zeros = torch.zeros(len(self), dtype=dtype, device=self.means.device)
            self.statistics.register_buffer(name, zeros)
        return self.statistics.get_buffer(name)

    def generator(self, step: int, purpose: int) -> torch.Generator:
        """Random numbers that follow from the seed, the step and what they are for: nothing is left of
        earlier draws, so a resumed run draws the same."""
        generator = torch.Generator(self.means.device)
        # Splitmix64's increment and multiplier, to part numbers that lie next to each other.
        mixed = (
            int(self.seed) * 0x9E3779B97F4A7C15 + step
        ) * 0xBF58476D1CE4E5B9 + purpose * 0x94D049BB133111EB
        mixed ^= mixed >> 31
        return generator.manual_seed(mixed % (1 << 63))

    # ---- rows that come and go ---------------------------------------------------------------------------

    def keep(self, optimizer: torch.optim.Optimizer | None, rows: Tensor) -> None:
        """Only the Gaussians of a mask (N,) or of indices, in their order."""
        self.exchange(optimizer, rows, None)

    def grow(self, optimizer: torch.optim.Optimizer | None, added: GaussianCloud) -> None:
        """More Gaussians, behind the others."""
        self.exchange(optimizer, slice(None), added)

    @torch.no_grad()
    def exchange(
        self, optimizer: torch.optim.Optimizer | None, kept: Tensor | slice, added: GaussianCloud | None
    ) -> None:
        """Keep some rows (a mask, indices or a slice) and put new ones behind them."""
        if added is not None and (added.surfels, added.sh_degree) != (self.surfels, self.sh_degree):
            raise ValueError("what is added must have as many scales and harmonics as what is there")
        count = 0 if added is None else len(added)
        values = {} if added is None else added.parameters()
        for name in PARAMETERS:
            old = getattr(self, name)
            rows = old.detach()[kept]
            new = nn.Parameter(torch.cat([rows, values[name].to(rows)]) if count else rows.clone())
            setattr(self, name, new)
            if optimizer is not None:
                _follow(optimizer, old, new, kept, count)
        for name, counted in list(self.statistics.named_buffers()):
            self.statistics.register_buffer(name, _with_zeros(counted[kept], count))

    @torch.no_grad()
    def replace(
        self, optimizer: torch.optim.Optimizer | None, rows: Tensor, values: Mapping[str, Tensor]
    ) -> None:
        """Other values for rows (K,): parameters that `values` names, one row each. These lose their moments
        (of these parameters alone)."""
        for name, value in values.items():
            parameter = getattr(self, name)
            parameter[rows] = value.to(parameter)
            if optimizer is not None:
                for moment in _moments(optimizer, parameter).values():
                    moment[rows] = 0

    @property
    def surfels(self) -> bool:
        return self.scales.shape[1] == 2

    @property
    def sh_degree(self) -> int:
        return self.cloud.sh_degree

    def reshape_for(self, tensors: Mapping[str, Tensor]) -> None:
        """Take on the shape of a state dict, so that it can be loaded."""
        like = {"dtype": self.means.dtype, "device": self.means.device}
        for name in PARAMETERS:
            setattr(self, name, nn.Parameter(torch.zeros(tensors[name].shape, **like)))
        self.statistics = nn.Module()
        for name, tensor in tensors.items():
            if name.startswith(_COUNTED):
                zeros = torch.zeros_like(tensor, device=self.means.device)
                self.statistics.register_buffer(name.removeprefix(_COUNTED), zeros)

    def extra_repr(self) -> str:
        return f"{len(self)} {'surfels' if self.surfels else 'Gaussians'}, degree {self.sh_degree}"


def learning_rate(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> float:
    """The rate with which an optimiser moves a parameter now. ValueError where it does not."""
    for group in optimizer.param_groups:
        if any(own is parameter for own in group["params"]):
            return float(group["lr"])
    raise ValueError("the optimiser does not train this parameter")


def _moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """What an optimiser remembers of each row; counters of steps are single numbers and stay."""
    state: dict[str, Any] = optimizer.state.get(parameter, {})
    return {
        key: value
        for key, value in state.items()
        if isinstance(value, Tensor) and value.shape == parameter.shape
    }


def _follow(
    optimizer: torch.optim.Optimizer,
    old: nn.Parameter,
    new: nn.Parameter,
    kept: Tensor | slice,
    added: int,
) -> None:
    """Let an optimiser train `new` in place of `old`, and keep what it remembers of the rows that stay."""
    for group in optimizer.param_groups:
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
    moments = _moments(optimizer, old)
    state = optimizer.state.pop(old, None)
    if state is not None:
        optimizer.state[new] = state | {
            key: _with_zeros(value[kept], added) for key, value in moments.items()
        }


def _with_zeros(rows: Tensor, count: int) -> Tensor:
    return torch.cat([rows, rows.new_zeros(count, *rows.shape[1:])]) if count else rows.clone()
