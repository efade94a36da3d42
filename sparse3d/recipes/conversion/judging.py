"""What a conversion changes: how far surfaces are apart, and how alike pictures are."""

import math
import time
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from sparse3d.evaluation.images import mean_scores, score
from sparse3d.evaluation.surfaces import score_against_mesh
from sparse3d.recipes.conversion.kinds import ConversionConfig, Kind, Thing, described, kind_of
from sparse3d.recipes.conversion.steps import way
from sparse3d.recipes.conversion.views import bounds_of, ring, sight, surface_of

_VIEWS = 8  # between those that are fitted to
_POINTS = 20_000  # on each surface
_THRESHOLD = 0.01  # of the diagonal; what the F-score counts is not shown


@dataclass(frozen=True)
class Judged:
    """A step: what came out, how long it took (seconds; None for several steps together), and how far that is
    from what went in: `chamfer` metres and `normals` (normal consistency) of the surfaces, NaN where one has
    none; `psnr` dB and `ssim` of pictures of the one against pictures of the other."""

    source: Kind
    target: Kind
    size: str
    seconds: float | None
    chamfer: float
    normals: float
    psnr: float
    ssim: float


def convert_and_judge(
    thing: Thing, target: Kind, config: ConversionConfig | None = None
) -> tuple[Thing, list[Judged]]:
    """As `steps.convert`, with a row for each step, and where there are several one for all together."""
    config, first, rows = config or ConversionConfig(), thing, []
    for step in way(kind_of(thing), target):
        begin = time.perf_counter()
        made = step.change(thing, config)
        rows.append(compared(thing, made, config, time.perf_counter() - begin))
        thing = made
    if len(rows) > 1:
        rows.append(compared(first, thing, config))
    return thing, rows


def compared(before: Thing, after: Thing, config: ConversionConfig, seconds: float | None = None) -> Judged:
    """How far one is from the other."""
    low, high = bounds_of(before)
    try:
        if kind_of(before) in (Kind.GAUSSIANS, Kind.SURFELS) and kind_of(after) == Kind.MESH:
            # What the surface of a cloud is, is decided by this very step: it would be compared to itself.
            raise ValueError("no surface but the one that was made")
        ours, theirs = (surface_of(thing, config.resolution) for thing in (after, before))
        threshold = _THRESHOLD * max(float(np.linalg.norm(high - low)), 1e-12)
        found = score_against_mesh(ours, theirs, threshold, _POINTS, config.seed)
        chamfer, normals = found.chamfer, found.normal_consistency
    except ValueError:  # no surface, or one without area
        chamfer = normals = float("nan")
    scores = []
    for camera in ring(low, high, _VIEWS, config.pixels, turn=0.37):
        target, shown = (np.clip(sight(thing, camera).color, 0, 1) for thing in (before, after))
        scores.append(score(shown, target))
    mean = mean_scores(scores)
    return Judged(
        kind_of(before), kind_of(after), described(after), seconds, chamfer, normals, mean.psnr, mean.ssim
    )


def table(rows: list[Judged], voxel_size: float) -> Table:
    """For people; distances also in voxels."""
    out = Table("step", "made", "s", "Chamfer, mm", "voxels", "normals", "PSNR, dB", "SSIM")
    for row in rows:
        change = f"{row.source} -> {row.target}"
        if row.seconds is None:
            change = f"finished {row.target}" if row.source is row.target else f"all: {change}"
        out.add_row(
            change,
            row.size,
            "" if row.seconds is None else f"{row.seconds:.1f}",
            _number(1000 * row.chamfer, ".3g"),
            _number(row.chamfer / voxel_size, ".3f"),
            _number(row.normals, ".4f"),
            f"{row.psnr:.2f}",
            f"{row.ssim:.4f}",
        )
    return out


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)
