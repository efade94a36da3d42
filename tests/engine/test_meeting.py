"""Processes of one life find each other, whatever a former life left behind."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from sparse3d.engine.meeting import agree


def names(store, ranks, count):
    with ThreadPoolExecutor(len(ranks)) as pool:
        return [*pool.map(lambda rank: agree(store, rank, count, timedelta(seconds=20)), ranks)]


def test_every_life_has_one_name_of_its_own():
    store = dist.HashStore()
    lives = [names(store, [2, 0, 1], 3) for _ in range(4)]
    assert all(len(set(life)) == 1 for life in lives)
    assert len({life[0] for life in lives}) == 4


def test_who_comes_first_after_a_restart_does_not_go_on_with_the_dead():
    store = dist.HashStore()
    (former, _) = names(store, [0, 1], 2)
    former_answer = store.get(f"{former}/1")
    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(agree, store, 1, 2, timedelta(seconds=20))
        # It answers to the name of the former life, which confirmed another word, and does not believe it.
        while store.get(f"{former}/1") == former_answer and not early.done():
            pass
        assert not early.done()
        now = agree(store, 0, 2, timedelta(seconds=20))
        assert early.result() == now != former


@pytest.mark.parametrize("rank", [0, 1])
def test_waiting_has_an_end(rank):
    with pytest.raises(TimeoutError, match="did not come"):
        agree(dist.HashStore(), rank, 2, timedelta(seconds=0.1))


def test_a_process_alone_waits_for_nobody():
    assert agree(dist.HashStore(), 0, 1).startswith("sparse3d/")
