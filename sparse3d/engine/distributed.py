"""Several processes, started by torchrun: who am I, averages over all of us, and a clean end.

    torchrun --nproc-per-node 2 -m sparse3d.cli train CONFIG

trains with one process a GPU (or, without any, two CPU processes). `loader.batch_size` counts the frames of
one process; with `train.sync_batchnorm` the steps are those of one process with the batches of all. Losses
whose normaliser is averaged with `all_reduce_mean` compose: their mean over processes is that of the whole.

Every function also works in a single process, where it does nothing; callers need no branches.
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sparse3d.nn.collectives import all_reduce_mean as all_reduce_mean
from sparse3d.nn.collectives import world_size as world_size

T = TypeVar("T")


def is_distributed() -> bool:
    """True between the start and the end of a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number, 0 for the one that writes files and talks."""
    return dist.get_rank() if is_distributed() else 0


def is_main() -> bool:
    """True in the process that writes files and talks."""
    return rank() == 0


@contextlib.contextmanager
def process_group(device: str) -> Iterator[torch.device]:
    """Join the group that torchrun's environment describes (none: a single process); yields the device.

    `device` is "auto" (CUDA when there is one), "cpu" or "cuda". CUDA groups talk over NCCL, CPU groups
    over gloo.
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device 'cuda' asked for, but torch sees no CUDA device; use device=cpu or device=auto"
        )
    local = (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if kind == "cuda" else torch.device(kind)
    )
    if local.type == "cuda":
        torch.cuda.set_device(local)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield local
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ValueError(f"WORLD_SIZE is set but {', '.join(missing)} is not; start with torchrun")
    # The others wait while the first process evaluates or generates data; NCCL's default is ten minutes.
    dist.init_process_group("nccl" if local.type == "cuda" else "gloo", timeout=timedelta(hours=4))
    try:
        yield local
    finally:
        dist.destroy_process_group()


def any_process(flag: bool, device: torch.device) -> bool:
    """True in every process when it is true in one, so that all of them stop at the same step."""
    if not is_distributed():
        return flag
    value = torch.tensor([float(flag)], device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def gather(values: Tensor, device: torch.device) -> Tensor:
    """`values` (same shape everywhere) of all processes, stacked along a new first axis, on the CPU."""
    if not is_distributed():
        return values.cpu()[None]
    parts = [torch.empty_like(values, device=device) for _ in range(world_size())]
    dist.all_gather(parts, values.to(device))
    return torch.stack(parts).cpu()


def from_main(value: T) -> T:
    """The first process's `value` in all of them; it travels pickled, between our own processes only."""
    if not is_distributed():
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def barrier() -> None:
    """Wait until every process is here."""
    if is_distributed():
        dist.barrier()


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """The block in the first process, then in all others: for what writes files that the others then find."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()
