"""The splats that each tile of an image shows, front to back.

Tiles are 16 x 16 pixels, row after row. Of two splats at one depth the lower row comes first, so the order is
one and the same on every device.
"""

from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from sparse3d_ops.checks import check_range, check_same_device, check_starts, check_tensor, remember
from sparse3d_ops.splat_projection import EXACT, check_size

TILE = 16


class Tiles(NamedTuple):
    """starts (T + 1,) int64: where the list of a tile begins; splats (M,) int32: the lists, one after the
    other; slots (M,) int64: a number for each entry, those of a splat n being offsets[n] to offsets[n + 1],
    offsets (N + 1,) int64."""

    starts: Tensor
    splats: Tensor
    slots: Tensor
    offsets: Tensor


def tile_counts(width: int, height: int) -> tuple[int, int]:
    """Tiles across and down."""
    return -(-width // TILE), -(-height // TILE)


def list_splats(means2d: Tensor, reach: Tensor, depths: Tensor, size: tuple[int, int]) -> Tiles:
    """(N, 2), (N, 2), (N,) of `project_gaussians` -> Tiles of an image of `size` (width, height).

    A splat is listed where the box means2d +- reach meets a tile, and nowhere if its reach is 0. ValueError
    where a splat that reaches somewhere has no depth above 0.
    """
    return Tiles(*tile_lists(means2d, reach, depths, size[0], size[1]))


@torch.library.custom_op("sparse3d::tile_lists", mutates_args=(), device_types="cpu")
def tile_lists(
    means2d: Tensor, reach: Tensor, depths: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The op behind `list_splats`."""
    from numba import get_num_threads

    from sparse3d_ops.cpu import splat_tiles as body

    check_places(means2d, reach, depths, width, height)
    across, down = tile_counts(width, height)
    boxes, offsets = torch.empty(len(means2d), 4, dtype=torch.int32), torch.empty(len(means2d) + 1).long()
    middle, around, depth = (x.detach().contiguous().numpy() for x in (means2d, reach, depths))
    entries = int(body.count(middle, around, depth, TILE, across, down, boxes.numpy(), offsets.numpy()))
    if entries < 0:
        refuse_depths(reach, depths)
    starts = torch.empty(across * down + 1, dtype=torch.int64)
    splats, slots = torch.empty(entries, dtype=torch.int32), torch.empty(entries, dtype=torch.int64)
    order = body.by_depth(depth, around)
    lists = (x.numpy() for x in (starts, splats, slots))
    body.fill(order, boxes.numpy(), offsets.numpy(), across, down, 2 * get_num_threads(), *lists)
    return starts, splats, slots, offsets


@tile_lists.register_kernel("cuda")
def _(
    means2d: Tensor, reach: Tensor, depths: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from sparse3d_ops.gpu import splat_tiles as body

    check_places(means2d, reach, depths, width, height)
    places = [x.detach().contiguous() for x in (means2d, reach, depths)]
    across, down = tile_counts(width, height)
    boxes, offsets, behind = body.count(places, across, down)
    # The host waits here, once: how many entries there are decides how much memory they take.
    entries, wrong = torch.stack((offsets[-1], behind)).tolist()
    if wrong:
        refuse_depths(reach, depths)
    starts, splats, slots = body.fill(depths, boxes, offsets, entries, across, down)
    remember(starts, "starts", entries)
    remember(splats, "range", (0, max(len(means2d) - 1, 0)))
    remember(slots, "range", (0, max(entries - 1, 0)))
    remember(offsets, "starts", entries)
    return starts, splats, slots, offsets


def check_places(means2d: Tensor, reach: Tensor, depths: Tensor, width: int, height: int) -> None:
    """Raise a ValueError unless these are of one projection, into an image."""
    check_size(width, height)
    check_tensor("means2d", means2d, ("N", 2), EXACT)
    check_tensor("reach", reach, (means2d.shape[0], 2), (means2d.dtype,))
    check_tensor("depths", depths, (means2d.shape[0],), (means2d.dtype,))
    check_same_device(("means2d", means2d), ("reach", reach), ("depths", depths))


def refuse_depths(reach: Tensor, depths: Tensor) -> NoReturn:
    """The ValueError that names the first splat with a reach and no depth."""
    row = int(((reach[:, 0] > 0) & ~(depths > 0)).nonzero()[0])
    raise ValueError(f"depths[{row}] is {float(depths[row])}, expected a distance above 0 where reach is")


def check_tiles(tiles: Tiles, splats: int, width: int, height: int) -> None:
    """Raise a ValueError unless these have the shapes of lists of so many splats for an image."""
    check_size(width, height)
    across, down = tile_counts(width, height)
    check_tensor("starts", tiles.starts, (across * down + 1,), (torch.int64,))
    check_tensor("splats", tiles.splats, ("M",), (torch.int32,))
    check_tensor("slots", tiles.slots, (tiles.splats.shape[0],), (torch.int64,))
    check_tensor("offsets", tiles.offsets, (splats + 1,), (torch.int64,))


def check_lists(tiles: Tiles, splats: int) -> None:
    """Raise a ValueError for an entry that is out of range. That slots are numbers without repetition is not
    checked. The numba bodies look at entries on the way and ask this for the words only; on a GPU what
    `list_splats` gives is known to be right."""
    check_starts("starts", tiles.starts, len(tiles.splats))
    check_range("splats", tiles.splats, 0, splats)
    check_range("slots", tiles.slots, 0, len(tiles.slots))
    check_starts("offsets", tiles.offsets, len(tiles.slots))


@tile_lists.register_fake
def _(means2d, reach, depths, width, height):
    entries = torch.library.get_ctx().new_dynamic_size()
    across, down = tile_counts(width, height)
    return (
        means2d.new_empty(across * down + 1, dtype=torch.int64),
        means2d.new_empty(entries, dtype=torch.int32),
        means2d.new_empty(entries, dtype=torch.int64),
        means2d.new_empty(means2d.shape[0] + 1, dtype=torch.int64),
    )
