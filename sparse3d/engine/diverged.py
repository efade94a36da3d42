"""Where did the NaN come from: the first layer with an output, or the parameters with a gradient, not
finite.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


class TrainingDiverged(RuntimeError):
    """A loss or gradient became NaN or infinite. The last checkpoint was written before that and is good."""


def blame_batch(batch: Any) -> str | None:
    """The first tensor of the batch that is not finite, by name."""
    names = [f.name for f in dataclasses.fields(batch)] if dataclasses.is_dataclass(batch) else []
    return next((f"batch.{name}" for name in names if not _finite(getattr(batch, name))), None)


def blame_parameter(model: nn.Module) -> str | None:
    """The first parameter whose value is not finite, by name."""
    return next((name for name, parameter in model.named_parameters() if not _finite(parameter)), None)


def blame_gradients(model: nn.Module) -> list[str]:
    """The parameters whose gradients are not finite, in the model's order."""
    return [n for n, p in model.named_parameters() if p.grad is not None and not _finite(p.grad)]


def blame_layer(model: nn.Module, run: Callable[[], Any]) -> str | None:
    """Call `run` (a forward pass of `model`) again and name the first layer that puts out a non-finite
    value.
    """
    culprits: list[str] = []

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            # Children finish before their parents, so the first entry is the innermost layer.
            if not culprits and not all(_finite(tensor) for tensor in _tensors(output)):
                culprits.append(f"{name} ({type(module).__name__})")

        return module.register_forward_hook(hook)

    handles = [watch(name, module) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            run()
    except Exception:  # the culprit may make a later layer raise; what was found until then counts
        pass
    finally:
        for handle in handles:
            handle.remove()
    return culprits[0] if culprits else None


def _finite(value: Any) -> bool:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return True
    return bool(torch.isfinite(value.detach()).all())


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _tensors(value)
    elif hasattr(output, "features"):  # a SparseTensor
        yield from _tensors(output.features)
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        for f in dataclasses.fields(output):
            yield from _tensors(getattr(output, f.name))
