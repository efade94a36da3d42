"""Adam for tables of which a batch sees a part (Kingma & Ba, arXiv 1412.6980, without bias correction).

A row of a parameter whose whole gradient is zero was not seen: it keeps its value and its moments, where
plain Adam would go on moving it. Gaussian splatting calls this selective Adam (Taming 3DGS, arXiv
2406.15643).
"""

from collections.abc import Callable
from typing import Any

import torch

from sparse3d_ops.selective_adam import selective_adam


class SelectiveAdam(torch.optim.Optimizer):
    """Parameters have one row an entry, (N, ...)."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-9):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore
        loss = None if closure is None else closure()
        together: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None or not parameter.numel():
                    continue
                state = self.state[parameter]
                if not state:
                    state["mean"] = torch.zeros_like(parameter)
                    state["square"] = torch.zeros_like(parameter)
                rows = (len(parameter), -1)
                moments = state["mean"].view(rows), state["square"].view(rows)
                table = parameter.view(rows), parameter.grad.reshape(rows), *moments, group["lr"]
                together.setdefault((*group["betas"], group["eps"]), []).append(table)
        for numbers, tables in together.items():
            selective_adam(*map(list, zip(*tables, strict=True)), *numbers)
        return loss
