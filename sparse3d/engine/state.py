"""What a checkpoint of a training run holds, and how a run continues from it bit for bit."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

import sparse3d
from sparse3d.engine import distributed, parallel
from sparse3d.engine.checkpoint import Checkpoint, check_names
from sparse3d.engine.seed import rng_state, set_rng_state
from sparse3d.errors import DataError

if TYPE_CHECKING:
    from sparse3d.engine.loop import Trainer

_KEYS = {"step", "epoch", "batch", "ema_updates", "loader", "scaler", "world_size", "total_steps"}


@runtime_checkable
class TakesShape(Protocol):
    """A model whose parameters change their shapes while it is trained."""

    def reshape_for(self, tensors: Mapping[str, Tensor]) -> None:
        """Take on the shapes of these, the model's state by name."""
        ...


def capture(trainer: Trainer) -> Checkpoint:
    """The whole state of a run between two steps. Every process must call it; the first one writes the
    result.
    """
    parts = {
        "model": parallel.whole(trainer.model.state_dict()),
        "ema": parallel.whole(trainer.ema.tensors if trainer.ema else {}),
        "optimizer": parallel.whole(optimizer_tensors(trainer.model, trainer.optimizer)),
        # One row a process: each has random numbers of its own.
        "rng": {name: distributed.gather(tensor, trainer.device) for name, tensor in rng_state().items()},
    }
    return Checkpoint(
        tensors={f"{part}.{name}": tensor for part, named in parts.items() for name, tensor in named.items()},
        state={
            "step": trainer.step,
            "epoch": trainer.epoch,
            "batch": trainer.batch,
            "ema_updates": trainer.ema.updates if trainer.ema else 0,
            "loader": trainer.loader.state_dict(),
            "scaler": trainer.scaler.state_dict(),
            "world_size": distributed.world_size(),
            "total_steps": trainer.total_steps,
            "versions": {
                "sparse3d": sparse3d.__version__,
                "torch": str(torch.__version__),
                "python": platform.python_version(),
            },
        },
    )


def restore(trainer: Trainer, checkpoint: Checkpoint, source: str | Path) -> None:
    """Continue from `checkpoint`. Raises DataError when it does not fit the run; `source` names it in
    messages.
    """
    state = checkpoint.state
    absent = sorted(_KEYS - set(state))
    if absent:
        raise DataError(source, f"the state lacks {', '.join(absent)}; it was not written by a training run")
    if state["world_size"] != distributed.world_size():
        raise DataError(
            source,
            f"written by {state['world_size']} processes, resumed with {distributed.world_size()}; "
            "the order of the data would change: use the same number of processes",
        )
    if state["total_steps"] != trainer.total_steps:
        raise DataError(
            source,
            f"written by a run of {state['total_steps']} steps, this one has {trainer.total_steps}; "
            "the schedule would jump: resume with the same data set, batch size and epochs",
        )
    weights = checkpoint.part("model")
    if isinstance(trainer.model, TakesShape):
        trainer.model.reshape_for(weights)
        trainer.renew_optimizer()
    own = trainer.model.state_dict()
    check_names(own, weights, source)
    trainer.model.load_state_dict({name: parallel.spread_as(weights[name], own[name]) for name in own})
    averaged = checkpoint.part("ema")
    if bool(averaged) != (trainer.ema is not None):
        raise DataError(
            source, "one of checkpoint and run has averaged weights; resume with the same train.ema_decay"
        )
    if trainer.ema:
        check_names(trainer.ema.tensors, averaged, source)
        trainer.ema.updates = state["ema_updates"]
        for name, tensor in averaged.items():
            own = trainer.ema.tensors[name]
            own.copy_(parallel.spread_as(tensor, own))
    load_optimizer(trainer.model, trainer.optimizer, checkpoint.part("optimizer"), source)
    if state["scaler"]:
        trainer.scaler.load_state_dict(state["scaler"])
    trainer.loader.load_state_dict(state["loader"])
    trainer.step, trainer.epoch, trainer.batch = state["step"], state["epoch"], state["batch"]
    rng = checkpoint.part("rng")
    # Cloned: torch takes a state only from the begin of its memory, where rows but the first do not lie.
    set_rng_state({name: rows[distributed.rank()].clone() for name, rows in rng.items()})


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as `<parameter>.<value>`; parameters are named, not numbered."""
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{named[id(parameter)]}.{key}": torch.as_tensor(value)
        for parameter, values in optimizer.state.items()
        for key, value in values.items()
        if value is not None
    }


def load_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], source: str | Path
) -> None:
    """The inverse of `optimizer_tensors`, with every value checked against its parameter's shape."""
    optimizer.state.clear()
    parameters = dict(model.named_parameters())
    for full_name, tensor in tensors.items():
        name, _, key = full_name.rpartition(".")
        parameter = parameters.get(name)
        if parameter is None:
            raise DataError(source, f"optimiser state for '{name}', a parameter that the model does not have")
        if tensor.dim() and tensor.shape != parameter.shape:
            shapes = f"{tuple(tensor.shape)}, the parameter is {tuple(parameter.shape)}"
            raise DataError(source, f"optimiser state '{full_name}' is {shapes}")
        # Step counters are scalars and stay on the CPU, as torch keeps them.
        optimizer.state[parameter][key] = (
            parallel.spread_as(tensor.clone(), parameter) if tensor.dim() else tensor.clone()
        )
