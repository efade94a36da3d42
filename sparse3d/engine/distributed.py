"""Several processes, started by torchrun: who am I, averages over all of us, and a clean end.

    torchrun --nproc-per-node 2 -m sparse3d.cli train CONFIG

trains with one process a GPU (or, without any, two CPU processes), and the same before `evaluate RUN` judges
with both. `loader.batch_size` counts the frames of one process; with `train.sync_batchnorm` the steps are
those of one process with the batches of all. For that the losses of a model must compose: their mean over
processes is that of the whole batch, however unevenly its frames are dealt. A loss that is a sum over
something is divided by `mean_over_ranks`, never by what this process alone has.

Every function also works in a single process, where it does nothing; callers need no branches.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sparse3d.engine.meeting import meet
from sparse3d.nn.collectives import all_reduce_mean as all_reduce_mean
from sparse3d.nn.collectives import mean_over_ranks as mean_over_ranks
from sparse3d.nn.collectives import world_size as world_size

T = TypeVar("T")

GLOO_SETTLES = 0.2  # seconds


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
    Within a group that was joined already nothing more happens.

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
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or is_distributed():
        yield local
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ValueError(f"WORLD_SIZE is set but {', '.join(missing)} is not; start with torchrun")
    # The others wait while the first process evaluates or generates data; NCCL's default is ten minutes.
    store, number, count = meet()
    backend = "nccl" if local.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=timedelta(hours=4))
    try:
        yield local
    finally:
        if backend == "gloo":
            # A thread of gloo's lets go of a collective's tensors after the collective has returned, and
            # needs the interpreter for that. Did it get it only after the end of `main`, it would abort us.
            time.sleep(GLOO_SETTLES)
        dist.destroy_process_group()


def is_restart() -> bool:
    """True in the processes that torchrun (--max-restarts) started after it lost some."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def any_process(flag: bool, device: torch.device) -> bool:
    """True in every process when it is true in one, so that all of them stop at the same step."""
    if not is_distributed():
        return flag
    value = torch.tensor([float(flag)], device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def sums(values: Sequence[float], device: torch.device) -> list[float]:
    """Each of the values summed over all processes; every one must have equally many."""
    if not is_distributed():
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return total.tolist()


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


def gather_on_main(values: list[T]) -> list[list[T]] | None:
    """The lists of all processes, in their order, in the first one; None in the others. They travel pickled,
    between our own processes only."""
    if not is_distributed():
        return [values]
    parts: list[Any] | None = [None] * world_size() if is_main() else None
    dist.gather_object(values, parts)
    return parts


def share_out(
    count: int,
    batch_size: int,
    work: Callable[[range], list[T]],
    progress: Callable[[int, int], None] | None = None,
) -> list[T] | None:
    """`work(rows)` on every batch of the rows 0 .. count - 1, dealt to all processes in turns.

    The first process gets the results of all rows in order, the same bits as a single process would: the
    batches are the same ones. The others get None. `progress(done, count)` is called in the first.
    """
    batches = [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    mine: list[list[T]] = []
    for first in range(0, len(batches), world_size()):
        turn = first + rank()
        # Who has none left in the last turn repeats one for nothing: where weights are spread over the
        # processes, each of them takes part in every forward pass.
        results = work(batches[turn % len(batches)])
        mine += [results] if turn < len(batches) else []
        if progress is not None and is_main():
            progress(min((first + world_size()) * batch_size, count), count)
    parts = gather_on_main(mine)
    if parts is None:
        return None
    return [row for k in range(len(batches)) for row in parts[k % len(parts)][k // len(parts)]]


@contextlib.contextmanager
def buffers_of_main(model: nn.Module) -> Iterator[None]:
    """Inside of the block all processes have the first one's buffers: without `sync_batchnorm` each has
    running statistics of its own."""
    if not is_distributed():
        yield
        return
    buffers = list(model.buffers())
    own = [buffer.clone() for buffer in buffers]
    for buffer in buffers:
        dist.broadcast(buffer, src=0)
    try:
        yield
    finally:
        for buffer, value in zip(buffers, own, strict=True):
            buffer.copy_(value)


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
