"""Where the processes of a run meet, also after torchrun has started them again.

torchrun's agent keeps one store of keys for all lives of a run, and torch reads from it where each process
listens. After a restart the addresses of the former life still stand there: processes then wait for ones that
are dead (PyTorch issue 135712). So the first process names each life anew, and all use keys below that name.
"""

# pyright: reportPrivateImportUsage=false
import json
import time
import uuid
from datetime import timedelta

from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

PATIENCE = timedelta(minutes=10)


def meet(patience: timedelta = PATIENCE) -> tuple[Store, int, int]:
    """(store of this life, rank, number of processes), from the environment that torchrun makes."""
    store, rank, count = next(iter(rendezvous("env://", timeout=patience)))
    return PrefixStore(agree(store, rank, count, patience), store), rank, count


def agree(store: Store, rank: int, count: int, patience: timedelta = PATIENCE) -> str:
    """A name that all processes of this life know and none of another does.

    The first process writes a name, waits until each of the others has answered to it with a word of its
    own, and confirms all the words. Who reads the name of a former life finds its word not confirmed and
    reads again. TimeoutError when somebody does not come.
    """
    word, deadline = uuid.uuid4().hex, time.monotonic() + patience.total_seconds()
    if rank == 0:
        store.set("sparse3d/life", word)
        answers = [f"sparse3d/{word}/{other}" for other in range(1, count)]
        _wait(store, answers, deadline, f"the other {count - 1} processes did not come")
        store.set(f"sparse3d/{word}/met", json.dumps([store.get(answer).decode() for answer in answers]))
        return f"sparse3d/{word}"
    while True:
        _wait(store, ["sparse3d/life"], deadline, "the first process did not come")
        life = store.get("sparse3d/life").decode()
        store.set(f"sparse3d/{life}/{rank}", word)
        met = f"sparse3d/{life}/met"
        if store.check([met]) and word in json.loads(store.get(met)):
            return f"sparse3d/{life}"
        _pause(deadline, "the first process did not confirm")


def _wait(store: Store, keys: list[str], deadline: float, problem: str) -> None:
    while keys and not store.check(keys):
        _pause(deadline, problem)


def _pause(deadline: float, problem: str) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(f"{problem} within the time; is one of them on another port or gone?")
    time.sleep(0.05)
