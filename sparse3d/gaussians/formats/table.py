"""Every format in one table: endings, axes, what it can hold, and who reads and writes it.

Axes of a format are those that its specification names, or that its own writers use where it names none.
Where a file says its axes itself (.spz may), that counts. See `frames`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from sparse3d.errors import DataError
from sparse3d.gaussians.cloud import MAX_SH_DEGREE, GaussianCloud
from sparse3d.gaussians.formats.compressed_ply import (
    is_compressed,
    open_compressed_ply,
    write_compressed_ply,
)
from sparse3d.gaussians.formats.frames import WORLD, change_axes, check_axes
from sparse3d.gaussians.formats.gltf_splats import GLTF_AXES, GLTF_SH_DEGREE, open_gltf, write_gltf
from sparse3d.gaussians.formats.inria_ply import open_inria_ply, write_inria_ply
from sparse3d.gaussians.formats.order import in_order
from sparse3d.gaussians.formats.sog import META, SOG_AXES, open_sog, write_sog
from sparse3d.gaussians.formats.source import Splats
from sparse3d.gaussians.formats.splat import open_splat, write_splat
from sparse3d.gaussians.formats.spz import SPZ_AXES, open_spz, write_spz
from sparse3d.gaussians.repair import LEAST_LOG_SCALE, repair
from sparse3d.gaussians.transform import with_sh_degree
from sparse3d.io.ply_header import has_faces, open_header
from sparse3d.io.reading import opened

PlyHolds = Literal["gaussians", "surfels", "mesh", "points"]


class Format(NamedTuple):
    """`axes` of its numbers; the highest `sh_degree` that it holds; `surfels`, whether two scales can be
    written; `ordered`, whether neighbours should follow each other. `open(path)` looks at the header
    alone."""

    name: str
    endings: tuple[str, ...]
    axes: str
    sh_degree: int
    surfels: bool
    ordered: bool
    open: Callable[[Path], Splats]
    write: Callable[..., None]


def _open_ply(path: Path) -> Splats:
    with opened(path) as (file, size):
        header = open_header(file, path)
    return (open_compressed_ply if is_compressed(header) else open_inria_ply)(path, header, size)


FORMATS = (
    Format("ply", (".ply",), WORLD, MAX_SH_DEGREE, True, False, _open_ply, write_inria_ply),
    Format("splat", (".splat",), WORLD, 0, False, False, open_splat, write_splat),
    Format("compressed", (".compressed.ply",), WORLD, 3, False, True, _open_ply, write_compressed_ply),
    Format("spz", (".spz",), SPZ_AXES, MAX_SH_DEGREE, False, False, open_spz, write_spz),
    Format("sog", (".sog", META), SOG_AXES, 3, False, True, open_sog, write_sog),
    Format("gltf", (".glb",), GLTF_AXES, GLTF_SH_DEGREE, False, False, open_gltf, write_gltf),
)
ENDINGS = tuple(ending for form in FORMATS for ending in form.endings)


def format_of(path: str | Path) -> Format:
    """By the ending of its name, the longest that fits. ValueError for another."""
    name = META if Path(path).is_dir() else Path(path).name.lower()
    fitting = [(len(e), form) for form in FORMATS for e in form.endings if name.endswith(e)]
    if not fitting:
        raise ValueError(f"{path}: Gaussians are in files that end in {', '.join(ENDINGS)}")
    return max(fitting, key=lambda pair: pair[0])[1]


def open_splats(path: str | Path, axes: str | None = None) -> Splats:
    """The Gaussians of a file, block by block, turned to the axes of the world. `axes`: what the file's
    numbers are, where they are not what its format says. Raises DataError; what is read is not mended."""
    form = format_of(path)
    splats = form.open(Path(path))
    return turned(splats, WORLD, axes)


def read_splats(path: str | Path, axes: str | None = None) -> GaussianCloud:
    """As `open_splats`, all at once. Of a .ply of floats the parts are views of one table."""
    return open_splats(path, axes).cloud()


def write_splats(path: str | Path, cloud: GaussianCloud, axes: str | None = None, **options: object) -> None:
    """Write a cloud atomically, in the format of the name's ending and in the axes that it wants, or others.

    Coefficients of degrees that the format cannot hold are left out. .ply keeps every number; for others the
    cloud is mended as `repair` does it. ValueError for NaN and for what else has no meaning there. `options`
    are those of the format's writer.
    """
    form = format_of(path)
    cloud = GaussianCloud.of({name: part.detach() for name, part in cloud.parameters().items()})
    if form.name != "ply":
        cloud, found = repair(cloud)
        if found.left_out:
            raise ValueError(
                f"{path}: {found.left_out} Gaussians have a NaN or an infinity; repair(cloud) first"
            )
    if not len(cloud):
        raise ValueError(f"{path}: no Gaussians to write")
    splats = fitted(Splats.of(in_order(cloud) if form.ordered else cloud, WORLD), form, axes)
    form.write(path, splats, **options)


def turned(splats: Splats, to_axes: str, from_axes: str | None = None) -> Splats:
    """With the numbers of other axes; `from_axes` overrules what they are said to be."""
    came = from_axes or splats.axes
    check_axes(came)
    check_axes(to_axes)
    if came == to_axes:
        return splats
    return splats.mapped(lambda cloud: change_axes(cloud, came, to_axes), axes=to_axes)


def fitted(splats: Splats, form: Format, axes: str | None = None) -> Splats:
    """What a format can hold of them: SH of its degree, three scales where it knows no surfels, its axes."""
    splats = turned(splats, axes or form.axes)
    if splats.sh_degree > form.sh_degree:
        splats = splats.mapped(lambda c: with_sh_degree(c, form.sh_degree), sh_degree=form.sh_degree)
    if splats.surfels and not form.surfels:
        splats = splats.mapped(_thickened, surfels=False)
    return splats


def _thickened(cloud: GaussianCloud) -> GaussianCloud:
    """Surfels as Gaussians of no thickness."""
    thin = cloud.scales.new_full((len(cloud), 1), LEAST_LOG_SCALE)
    return GaussianCloud.of({**cloud.parameters(), "scales": torch.cat([cloud.scales, thin], 1)})


def ply_holds(path: str | Path) -> PlyHolds:
    """What a .ply holds, by its header alone. Raises DataError."""
    try:
        with open(path, "rb") as file:
            header = open_header(file, path)
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    if is_compressed(header):
        return "gaussians"
    names = {name for element in header.elements for name, _ in element.properties}
    if {"f_dc_0", "opacity", "rot_0"} <= names:
        return "gaussians" if "scale_2" in names else "surfels"
    return "mesh" if has_faces(header) else "points"
