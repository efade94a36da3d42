"""From a file of Gaussians to another: read, mended, put into the order and kind that the new format wants,
written, read back and compared. All formats are written block by block, and most are read so: memory is that
of a few blocks. What has to be sorted or grouped before waits on the disk of what is written."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sparse3d.errors import DataError
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.formats.losses import Loss, losses
from sparse3d.gaussians.formats.order import ordered
from sparse3d.gaussians.formats.source import Splats
from sparse3d.gaussians.formats.table import Format, fitted, format_of, open_splats
from sparse3d.gaussians.repair import Repairs, repair


@dataclass(frozen=True)
class Survey:
    """A look at all of them: how many are left when they are mended, and where."""

    splats: Splats
    count: int
    repairs: Repairs
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Conversion:
    """`axes` are those of the numbers in the file that was written; `losses` are None where nothing was read
    back."""

    came: Survey
    form: Format
    axes: str
    sh_degree: int
    surfels: bool
    losses: list[Loss] | None


def survey(splats: Splats) -> Survey:
    """Read once. `low` and `high` are the bounds of the means, in the axes that they come in."""
    repairs, count = Repairs(), 0
    low, high = torch.full((3,), torch.inf), torch.full((3,), -torch.inf)
    for block in splats.blocks():
        mended, found = repair(block)
        repairs, count = repairs + found, count + len(mended)
        if len(mended):
            low, high = torch.minimum(low, mended.means.amin(0)), torch.maximum(high, mended.means.amax(0))
    return Survey(splats, count, repairs, tuple(low.tolist()), tuple(high.tolist()))


def mended(splats: Splats) -> tuple[Splats, Survey]:
    """Without what cannot be drawn; this reads all of it once, to count."""
    seen = survey(splats)
    if not seen.repairs:
        return splats, seen

    def blocks(rows: int) -> Iterator[GaussianCloud]:
        for block in splats.make_blocks(rows):
            whole = repair(block)[0]
            if len(whole):
                yield whole

    return replace(splats, count=seen.count, make_blocks=blocks), seen


def convert(
    source: str | Path,
    target: str | Path,
    *,
    axes: str | None = None,
    target_axes: str | None = None,
    compare: bool = True,
    **options: object,
) -> Conversion:
    """Write the Gaussians of a file to another. `axes` and `target_axes`: those of the numbers in the
    files, where they are not the formats' own; `options` are those of the writer. Raises DataError, and
    ValueError for endings that no format has. A file at `target` is replaced when the new one is whole."""
    form = format_of(target)
    if Path(target).exists() and Path(source).exists() and Path(source).samefile(target):
        raise ValueError(f"{target}: is what is read; write to another name")
    whole, seen = mended(open_splats(source, axes))
    if not seen.count:
        raise DataError(source, f"no Gaussian in it can be drawn: {seen.repairs}")
    new = fitted(whole, form, target_axes)
    target, found = Path(target), None
    target.parent.mkdir(parents=True, exist_ok=True)
    with ordered(new, target.parent) if form.ordered else nullcontext(new) as new:
        form.write(target, new, **options)
        if compare:
            found = losses(new.blocks(), form.open(target).blocks())
    return Conversion(seen, form, target_axes or form.axes, new.sh_degree, new.surfels, found)
