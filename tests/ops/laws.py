"""What every op must obey, stated once: see `test_laws.py` for the laws and `cases_*.py` for the ops.

A case is a function `(dtype, device) -> args`; names of cases say which border it stands on (empty, single,
duplicate, border, negative, ...). `differentiable` are the positions of the arguments that get a gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Case = Callable[[torch.dtype, torch.device], tuple[Any, ...]]


@dataclass(frozen=True)
class OpLaw:
    """One op under the law suite.

    `op` is the public custom op; `oracle` its slow definition with the same arguments and results (numpy or
    torch, loops allowed; results are compared in order). `tolerance` is the relative float32 error allowed
    against the oracle evaluated in float64, with its reason in a comment where it is not the default.
    `floating=False`: no float input dtype to vary (the cases ignore dtype). `gradient_cases`: the cases for
    gradcheck (None: all).
    """

    op: Callable[..., Any]
    oracle: Callable[..., Any]
    cases: dict[str, Case]
    differentiable: tuple[int, ...] = ()
    tolerance: float = 1e-5
    floating: bool = True
    gradient_cases: tuple[str, ...] | None = None
    # For an `op` that is a plain function over custom ops: its (custom op, args) for the arguments of a case.
    steps: Callable[..., list[tuple[Any, tuple[Any, ...]]]] | None = None

    @property
    def name(self) -> str:
        return getattr(self.op, "_name", getattr(self.op, "__name__", str(self.op))).split("::")[-1]


def as_tuple(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)
