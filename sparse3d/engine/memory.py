"""How much memory processes hold, as the operating system counts it."""

import multiprocessing
import os
import re
import sys
from pathlib import Path


def resident(pid: int | None = None) -> int | None:
    """Bytes of memory that a process (default: this one) holds at present; None where /proc does not tell."""
    return _status(pid, "VmRSS")


def peak_resident(pid: int | None = None) -> int | None:
    """The most bytes that a process ever held; None where the system does not tell."""
    found = _status(pid, "VmHWM")
    if found is None and pid is None and sys.platform != "win32":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    return found


def workers() -> list[int]:
    """The processes that this one started through `multiprocessing` and that live: a loader's workers."""
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


def _status(pid: int | None, name: str) -> int | None:
    path = Path(f"/proc/{os.getpid() if pid is None else pid}/status")
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", path.read_text(), re.MULTILINE)
    except OSError:  # another system, or the process has gone
        return None
    return None if found is None else 1024 * int(found[1])
