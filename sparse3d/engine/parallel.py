"""One model in several processes: whole in each of them (DDP), or spread over all of them (FSDP).

Spread weights, their gradients, the optimiser's state and averaged weights are DTensors: each process holds
its rows of each. A layer's weights are gathered when the layer runs and given up again after it. Checkpoints
hold whole tensors either way, and any number of processes reads them. Source: PyTorch FSDP (arXiv
2304.11277), its second edition `fully_shard`.
"""

import contextlib
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from sparse3d.engine import distributed

Kind = Literal["ddp", "fsdp"]
# What is called from outside in place of `forward`.
ENTRANCES = ("loss", "predict", "logits")


def spread(model: nn.Module, device: torch.device) -> None:
    """Spread the model's parameters over all processes, in place: those of each child by themselves, so that
    no more than one child's are whole at a time, and the rest together."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    if device.type == "cpu" and any(_ours(module) for module in model.modules()):
        # An array that shares a tensor's memory fixes it for good, and FSDP resizes it at each layer's end.
        raise ValueError(
            f"distributed fsdp on a CPU cannot hold {type(model).__name__}: numba reads its memory as "
            "arrays, which FSDP could not give up; use train.distributed=ddp, or CUDA devices"
        )
    for parameter in model.parameters():  # torch spreads no others, such as those laid out channels last
        parameter.data = parameter.data.contiguous()
    mesh = init_device_mesh(device.type, (distributed.world_size(),))
    for child in model.children():
        # A list of layers is never called itself, so nothing would gather its weights.
        if not isinstance(child, (nn.ModuleList, nn.ModuleDict)) and any(True for _ in child.parameters()):
            fully_shard(child, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for name in ENTRANCES:
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)


class Losses(nn.Module):
    """DistributedDataParallel only sees calls of `forward`; this makes `loss` one."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, batch: Any) -> dict[str, Tensor]:
        losses = self.model.loss(batch)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        if distributed.is_distributed() and not any(loss.requires_grad for loss in losses.values()):
            # Every process must take part in the exchange of gradients, also the one whose batch is empty.
            zero = sum((p.sum() * 0.0 for p in self.model.parameters() if p.requires_grad), torch.zeros(()))
            losses = {name: loss + zero for name, loss in losses.items()}
        return losses


def wrap(model: nn.Module, kind: Kind, device: torch.device) -> nn.Module:
    """A module that gives the model's losses and, after `backward`, the same mean gradients everywhere."""
    losses = Losses(model)
    if not distributed.is_distributed() or kind == "fsdp":
        return losses
    return DistributedDataParallel(losses, device_ids=[device.index] if device.type == "cuda" else None)


def exchange(wrapped: nn.Module, now: bool) -> contextlib.AbstractContextManager[Any]:
    """In the block, `backward` exchanges gradients between processes (`now`), or only adds them up here."""
    if isinstance(wrapped, DistributedDataParallel):
        return contextlib.nullcontext() if now else wrapped.no_sync()
    model = wrapped.model
    if hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(now)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    return contextlib.nullcontext()


def same_everywhere(model: nn.Module) -> None:
    """Give every process the first one's parameters and buffers: each made its own from its own seed."""
    if distributed.is_distributed():
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, src=0)


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Spread tensors put together, in the first process alone (others get none of these); the rest as they
    are. Every process must call it, with the same names in the same order."""
    found = {}
    for name, tensor in tensors.items():
        if _is_spread(tensor):
            tensor = tensor.full_tensor()  # pyright: ignore[reportAttributeAccessIssue]
            if not distributed.is_main():
                continue
            tensor = tensor.cpu()
        found[name] = tensor
    return found


def whole_scalar(tensor: Tensor) -> Tensor:
    """A number that every process needs, e.g. the norm of spread gradients."""
    return tensor.full_tensor() if _is_spread(tensor) else tensor  # pyright: ignore[reportAttributeAccessIssue]


def spread_as(tensor: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor, which every process has, on the device of `pattern` and spread as it is."""
    tensor = tensor.to(pattern.device)
    if not _is_spread(pattern):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, places = pattern.device_mesh, pattern.placements  # pyright: ignore[reportAttributeAccessIssue]
    return distribute_tensor(tensor, mesh, places, src_data_rank=None)


def _is_spread(tensor: Tensor) -> bool:
    if not distributed.is_distributed():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _ours(module: nn.Module) -> bool:
    """True for the networks and sparse layers of this library, whose CPU bodies are numba's."""
    return type(module).__module__.startswith(("sparse3d.models.", "sparse3d.nn.conv"))
