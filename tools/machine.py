"""What this machine can do at most, and how contestants are timed: shared by the benchmarks.

    import machine                           # the benchmarks are run as `python tools/bench_<op>.py`
    machine.use_threads(2)
    limits = machine.limits(2)               # measured now: multiply-adds in registers, copying large arrays
    times = machine.in_turns({"ours": f, "theirs": g}, repeats=15)

Contestants are timed in turns, in a random order, so that whatever else runs on the machine slows all of them
alike; the fastest and the slowest repeat stand beside each median. `Work` is what an answer needs at least
(inputs read once, outputs written once), so a share of the copy bandwidth says how far from the memory's
limit an op is.
"""

import argparse
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from rich.console import Console
from rich.table import Table

from sparse3d_ops.cpu.microkernel import VECTOR_BYTES, Emitter

Call = Callable[[], object]
CHAINS = 24  # independent sums: more than the latency times the throughput of any core, fewer than registers
ROUNDS = 1 << 16
COPIED = 1 << 28  # bytes; larger than any last-level cache that this is likely to run on


class Limits(NamedTuple):
    """Measured on `threads` threads: float32 multiply-adds (2 operations each) and bytes read + written."""

    gflops: float
    gbytes: float
    threads: int

    def __str__(self) -> str:
        return (
            f"{self.threads} thread{'s' * (self.threads > 1)}: {self.gflops:.0f} GFLOP/s of multiply-adds "
            f"(float32), {self.gbytes:.1f} GB/s of copying (read + written)"
        )


class Work(NamedTuple):
    """The least that an answer takes: bytes in and out, floating-point operations (0: none to speak of)."""

    bytes: int
    flops: int = 0


# ---- the machine -------------------------------------------------------------------------------------------


def words() -> str:
    """The machine and the versions in one line; no names of hosts or users."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    device = f"{cores} cores, {_processor()}, {VECTOR_BYTES * 8}-bit vectors"
    if torch.cuda.is_available():
        device += f"; {torch.cuda.get_device_name()}"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, numba {numba.__version__}"
    return f"{device}; {versions}, numpy {np.__version__}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = dict(
            line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line
        )
        found = {name.strip(): value.strip() for name, value in lines.items()}
        if "model name" in found:
            return f"{found['model name']} (family {found.get('cpu family', '?')})"
    return platform.processor() or platform.machine()


@intrinsic
def _multiply_adds(typing_context, values, rounds):
    """values: float32[3 * lanes], a start, a factor and a summand for each lane; the sums go to the start."""

    def generate(context, builder, signature, arguments):
        e = Emitter(builder, builder.module, signature.args[0].dtype)
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.ptrtoint(array.data, ir.IntType(64))
        start, factor, summand = (e.load_vector(e.offset(address, VECTOR_BYTES * k)) for k in range(3))

        def body(step, pointers, sums):
            return [e.multiply_add(s, factor, summand) for s in sums]

        sums = e.loop(arguments[1], [], [start] * CHAINS, body)
        total = sums[0]
        for value in sums[1:]:
            total = builder.fadd(total, value)
        e.store_vector(total, address)
        return context.get_dummy_value()

    return types.void(values, rounds), generate


@numba.njit(parallel=True, nogil=True)
def _multiply_add_rounds(values, rounds):
    for t in numba.prange(len(values)):
        _multiply_adds(values[t], rounds)


@numba.njit(parallel=True, nogil=True)
def _copy(source, target, parts):
    step = (len(source) + parts - 1) // parts
    for t in numba.prange(parts):
        target[t * step : (t + 1) * step] = source[t * step : (t + 1) * step]


def fma_peak(threads: int, repeats: int = 500) -> float:
    """GFLOP/s of float32 multiply-adds that stay in registers, the best of many repeats."""
    lanes = VECTOR_BYTES // 4
    values = np.tile(np.repeat(np.float32([1.0, 0.5, 1.0]), lanes), (threads, 1))
    best = min(_timed(lambda: _multiply_add_rounds(values, ROUNDS), repeats))
    return 2e-9 * lanes * CHAINS * ROUNDS * threads / best


def copy_bandwidth(threads: int, repeats: int = 7) -> float:
    """GB/s of copying an array that no cache holds, bytes read and written, the best of many repeats."""
    source, target = np.ones(COPIED, np.uint8), np.zeros(COPIED, np.uint8)
    return 2e-9 * COPIED / min(_timed(lambda: _copy(source, target, threads), repeats))


def limits(threads: int) -> Limits:
    """Both limits, measured now with `threads` threads."""
    use_threads(threads)
    return Limits(fma_peak(threads), copy_bandwidth(threads), threads)


def use_threads(threads: int) -> None:
    """Let numba and torch use so many threads, and keep every thread of the process on as many cores.

    The second half binds the libraries that have no such setting. Where the system cannot do it (it can on
    Linux), they run as they like.
    """
    most = numba.config.NUMBA_NUM_THREADS  # pyright: ignore[reportAttributeAccessIssue]
    if threads > most:
        raise SystemExit(f"{threads} threads asked for, numba has {most}; set NUMBA_NUM_THREADS={threads}")
    numba.set_num_threads(threads)
    torch.set_num_threads(threads)
    tasks = Path("/proc/self/task")
    if tasks.is_dir():
        cores = sorted(_CORES)[:threads]
        for task in tasks.iterdir():
            os.sched_setaffinity(int(task.name), cores)


_CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


# ---- contests ----------------------------------------------------------------------------------------------


def _timed(call: Call, repeats: int) -> list[float]:
    call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return times


def in_turns(contestants: Mapping[str, Call], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each repeat of each contestant, in turns, after one warm-up.

    Each round has an order of its own: in a fixed one the contestant after the one that writes most would
    always find its caches empty, and the next would find them filled with what it needs.
    """
    for call in contestants.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    order, chance = list(contestants.items()), random.Random(0)
    for _ in range(repeats):
        chance.shuffle(order)
        for name, call in order:
            begin = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - begin))
    return times


def spread(times: Sequence[float]) -> str:
    """Median (fastest - slowest), three digits."""
    median, low, high = statistics.median(times), min(times), max(times)
    return (
        f"{median:.3g} ({low:.3g} - {high:.3g})" if high < 1000 else f"{median:.0f} ({low:.0f} - {high:.0f})"
    )


class Board:
    """A table of one op: a row a size and a number of threads, ours and each peer side by side.

    `peers` name the columns in order; a row may leave some out (a peer that cannot do it, or takes too long).
    The factor is the fastest peer's median over ours: above 1 we are ahead.
    """

    def __init__(self, title: str, peers: Sequence[str], repeats: int):
        self.peers, self.repeats = list(peers), repeats
        self.table = Table(title=f"{title}, cpu, {repeats} repeats; milliseconds: median (fastest - slowest)")
        self.table.add_column("what")
        for name in (
            "size",
            "threads",
            "sparse3d",
            *self.peers,
            "best peer / sparse3d",
            "of copying",
            "of peak",
        ):
            self.table.add_column(name, justify="right")

    def row(self, what: str, size: str, limits: Limits, work: Work, contestants: Mapping[str, Call]) -> None:
        """Time ours, which is called "sparse3d" in `contestants`, and those of the peers that are there."""
        times = in_turns(contestants, self.repeats)
        ours = statistics.median(times["sparse3d"])
        others = [statistics.median(values) for name, values in times.items() if name != "sparse3d"]
        cells = [spread(times[name]) if name in times else "-" for name in self.peers]
        self.table.add_row(
            what,
            size,
            str(limits.threads),
            spread(times["sparse3d"]),
            *cells,
            f"{min(others) / ours:.2f}" if others else "-",
            f"{work.bytes / (1e6 * ours) / limits.gbytes:.0%}" if work.bytes else "-",
            f"{work.flops / (1e6 * ours) / limits.gflops:.1%}" if work.flops else "-",
        )

    def print(self) -> None:
        Console(width=max(100, 60 + 30 * len(self.peers) + 60)).print(self.table)


def optional(module: str) -> Any | None:
    """A peer's package where it is installed, else None."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--threads and --repeats, the same words for every benchmark."""
    most = numba.config.NUMBA_NUM_THREADS  # pyright: ignore[reportAttributeAccessIssue]
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, min(2, most)}))
    parser.add_argument("--repeats", type=int, default=15)


def each_limit(threads: Sequence[int]) -> Iterator[Limits]:
    """Print the machine, then give its limits for each number of threads, which is set meanwhile."""
    print(words())
    for count in threads:
        found = limits(count)
        print(found, flush=True)
        yield found


if __name__ == "__main__":
    _most = numba.config.NUMBA_NUM_THREADS  # pyright: ignore[reportAttributeAccessIssue]
    for _ in each_limit(range(1, _most + 1)):
        pass
