"""How much memory there is, and a refusal for what would need more."""

import os
from collections.abc import Callable
from pathlib import Path

import torch

_CPU = torch.device("cpu")
_LISTING, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def available_bytes(
    device: torch.device = _CPU, listing: Path = _LISTING, group: Path = _GROUP
) -> int | None:
    """Memory that can be had without pushing others out, and no more than a control group allows; half of the
    machine's where the system says no more than that, None where it does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = dict(line.split(":", 1) for line in listing.read_text().splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):  # another system
        try:
            free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        except (AttributeError, OSError, ValueError):
            return None
    try:
        most, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # not there, or "max"
        return free
    return min(free, max(most - used, 0))


def check_room(needed: int, what: str, way_out: Callable[[float], str]) -> None:
    """ValueError where `what` would need more bytes than there are. `way_out` says, for the part of what is
    needed that there is, below 1, what would fit."""
    free = available_bytes()
    if free is not None and needed > free:
        raise ValueError(
            f"{what} would need about {needed / 2**30:.3g} GiB, {free / 2**30:.3g} GiB are free; "
            + way_out(free / needed)
        )
