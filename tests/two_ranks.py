"""Two gloo processes on this machine, and what each of them found."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing
from torch import Tensor

from sparse3d.engine.distributed import GLOO_SETTLES

Found = dict[str, Tensor]


def on_two_ranks(work: Callable[..., Found], folder: Path, *arguments: Any) -> list[Found]:
    """`work(rank, *arguments)`, a function of a module, in two processes of one group."""
    multiprocessing.spawn(_rank, (work, str(folder), arguments), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def _rank(rank: int, work: Callable[..., Found], folder: str, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    try:
        torch.save(work(rank, *arguments), f"{folder}/{rank}.pt")
    finally:
        time.sleep(GLOO_SETTLES)
        torch.distributed.destroy_process_group()
