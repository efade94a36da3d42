"""How much memory there is, and a refusal for what would need more."""

from collections.abc import Callable
from pathlib import Path


def available_bytes(listing: Path = Path("/proc/meminfo")) -> int | None:
    """Memory that can be had without pushing others out, and no more than a control group allows; None where
    the system does not tell."""
    try:
        lines = dict(line.split(":", 1) for line in listing.read_text().splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None
    group = Path("/sys/fs/cgroup")
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
