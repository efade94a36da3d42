"""The mean over ranks, alone and with two processes."""

import torch
import torch.multiprocessing as multiprocessing

from sparse3d.nn.collectives import all_reduce_mean


def test_alone_it_is_the_identity_without_a_gradient():
    value = torch.tensor([1.0, 2.0], requires_grad=True)
    got = all_reduce_mean(value)
    assert torch.equal(got, value) and not got.requires_grad


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    value = torch.tensor([float(rank), 4.0])
    got = all_reduce_mean(value)
    torch.save((got, value), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_get_the_mean_and_keep_their_own_value(tmp_path):
    multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        got, value = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert got.tolist() == [0.5, 4.0]
        assert value.tolist() == [float(rank), 4.0]
