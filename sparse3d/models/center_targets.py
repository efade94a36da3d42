"""What the centre head should say for a set of labelled boxes.

The heatmap of a class is 1 at the cell of each object's centre and falls off as a Gaussian whose radius grows
with the object; the box code is asked for at those cells only. Where Gaussians meet, the larger value counts.
Two objects in one cell both stay: each adds its own regression term there, and the heatmap of their class has
one peak.

Sources: CornerNet (arXiv 1808.01244), section 3.2, for the radius; CenterPoint (arXiv 2006.11275), section 4.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparse3d.models.center_code import BevGrid, encode


class CenterTargets(NamedTuple):
    """The heatmap, in [0, 1], and for each of M objects its frame, cell, box code, box and velocity (m/s
    along x and y, NaN where unknown)."""

    heatmap: Float[Tensor, "B K X Y"]
    frame: Int[Tensor, "M"]
    cell: Int[Tensor, "M 2"]
    code: Float[Tensor, "M 8"]
    boxes: Float[Tensor, "M 7"]
    velocity: Float[Tensor, "M 2"]


def gaussian_radius(
    length: Float[Tensor, "M"], width: Float[Tensor, "M"], overlap: float
) -> Float[Tensor, "M"]:
    """How far, in cells, the corners of a length x width rectangle may move at an IoU of about `overlap`.

    The smallest of three roots r = (b + sqrt(b^2 - 4 a c)) / 2, for one corner pair inside and one outside,
    both inside, both outside. CornerNet's first release left out the division by a, and every centre-based
    LiDAR detector has kept its numbers since; so do we.
    """
    perimeter, area = length + width, length * width
    roots = []
    for a, b, c in (
        (1.0, perimeter, area * (1 - overlap) / (1 + overlap)),
        (4.0, 2 * perimeter, (1 - overlap) * area),
        (4 * overlap, -2 * overlap * perimeter, (overlap - 1) * area),
    ):
        roots.append((b + (b * b - 4 * a * c).clamp(min=0).sqrt()) / 2)
    return torch.stack(roots).amin(dim=0)


def draw_gaussians(
    heatmap: Float[Tensor, "B K X Y"],
    frame: Int[Tensor, "M"],
    label: Int[Tensor, "M"],
    cell: Int[Tensor, "M 2"],
    radius: Int[Tensor, "M"],
) -> None:
    """Raise `heatmap`, in place, to exp(-d^2 / 2 sigma^2) around each cell; sigma = (2 radius + 1) / 6.

    It ends `radius` cells from the centre on both axes. The result does not depend on the order of the
    objects: a maximum is exact.
    """
    if len(cell) == 0:
        return
    _, classes, size_x, size_y = heatmap.shape
    reach = int(radius.max())
    step = torch.arange(-reach, reach + 1, device=heatmap.device)
    dx, dy = (offset.reshape(1, -1) for offset in torch.meshgrid(step, step, indexing="ij"))
    x, y = cell[:, :1] + dx, cell[:, 1:] + dy
    inside = (x >= 0) & (x < size_x) & (y >= 0) & (y < size_y)
    inside &= torch.maximum(dx.abs(), dy.abs()) <= radius[:, None]
    sigma = (2 * radius[:, None] + 1).to(heatmap.dtype) / 6
    value = torch.exp(-(dx * dx + dy * dy) / (2 * sigma * sigma))
    plane = (frame * classes + label)[:, None]
    index = (plane * size_x + x) * size_y + y
    heatmap.view(-1).scatter_reduce_(0, index[inside], value[inside], reduce="amax")


@torch.no_grad()
def center_targets(
    boxes: Float[Tensor, "N 7"],
    labels: Int[Tensor, "N"],
    box_frame: Int[Tensor, "N"],
    batch_size: int,
    classes: Sequence[int],
    grid: BevGrid,
    *,
    velocities: Float[Tensor, "N 2"] | None = None,
    overlap: float = 0.1,
    min_radius: int = 2,
) -> CenterTargets:
    """Targets of one head group, whose channel k stands for label `classes[k]`.

    `velocities` may be NaN, or None, where they are not known. Left out: boxes of other classes, with a
    centre outside of the grid's bounds, with a size that is not positive, or with a number that is not
    finite.
    """
    boxes = boxes.float()
    match = labels[:, None] == torch.tensor(list(classes), device=labels.device)
    keep = match.any(dim=1) & grid.contains(boxes)
    keep &= (boxes[:, 3:6] > 0).all(dim=1) & boxes.isfinite().all(dim=1)
    boxes, frame, label = boxes[keep], box_frame[keep], match[keep].int().argmax(dim=1)

    cell = grid.cells(boxes)
    length, width = boxes[:, 3] / grid.cell[0], boxes[:, 4] / grid.cell[1]
    radius = gaussian_radius(length, width, overlap).long().clamp(min=min_radius)
    heatmap = boxes.new_zeros(batch_size, len(classes), *grid.shape)
    draw_gaussians(heatmap, frame, label, cell, radius)
    if velocities is None:
        velocity = torch.full_like(boxes[:, :2], float("nan"))
    else:
        velocity = velocities[keep].float()
    return CenterTargets(heatmap, frame, cell, encode(boxes, cell, grid), boxes, velocity)
