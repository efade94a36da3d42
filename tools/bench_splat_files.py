"""Time files of Gaussians, read and written, against other libraries where they are installed and raw bytes.

python tools/bench_splat_files.py [--count 1000000] [--folder DIR] [--repeats 9]

Reads and writes of .ply of SH degree 3, with INRIA's normals and without; the file is in the page cache. raw
reads the file's bytes into one array, or writes the same bytes; it and ours sync what they write to the disk,
the others do not, so they have a column of their own. plyfile hands out rows of a table: to have what the
others give, its columns are put together as INRIA's code does it. Every format of ours is timed after that,
with its size.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import machine
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.formats import read_splats, write_splats

OTHERS = ("a.compressed.ply", "a.splat", "a.spz", "a.sog", "a.glb")


def cloud_of(count: int) -> GaussianCloud:
    """In contiguous parts, as training has them."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw)

    quats = torch.nn.functional.normalize(normal(count, 4), dim=1)
    return GaussianCloud(
        normal(count, 3),
        normal(count, 3) - 4,
        quats,
        normal(count),
        normal(count, 1, 3),
        0.1 * normal(count, 15, 3),
    )


def by_plyfile(plyfile, path: Path) -> list[np.ndarray]:
    rows = plyfile.PlyData.read(str(path))["vertex"]
    rest = [rows[f"f_rest_{n}"] for n in range(45)]
    return [
        np.stack([rows[name] for name in ("x", "y", "z")], 1),
        np.stack([rows[f"f_dc_{n}"] for n in range(3)], 1),
        np.stack(rest, 1).reshape(-1, 3, 15).transpose(0, 2, 1),
        np.asarray(rows["opacity"]),
        np.stack([rows[f"scale_{n}"] for n in range(3)], 1),
        np.stack([rows[f"rot_{n}"] for n in range(4)], 1),
    ]


def raw_write(path: Path, data: np.ndarray, synced: bool) -> None:
    with open(path, "wb", buffering=0) as file:
        view = data.data
        while view:
            view = view[file.write(view) :]
        if synced:
            os.fsync(file.fileno())


def ply_rows(table: Table, cloud: GaussianCloud, folder: Path, normals: bool, repeats: int) -> None:
    path = folder / "a.ply"
    write_splats(path, cloud, normals=normals)
    layout = "with normals" if normals else "no normals"
    data = np.fromfile(path, np.uint8)
    readers = {"sparse3d": lambda: read_splats(path), "raw": lambda: np.fromfile(path, np.uint8)}
    writers = {
        "sparse3d": lambda: write_splats(folder / "ours.ply", cloud, normals=normals),
        "raw": lambda: raw_write(folder / "raw.ply", data, True),
        "raw, not synced": lambda: raw_write(folder / "raw.ply", data, False),
    }
    gsply, plyfile = machine.optional("gsply"), machine.optional("plyfile")
    if gsply is not None:
        readers["gsply"] = lambda: gsply.plyread(path)
        theirs = gsply.plyread(path)
        assert np.array_equal(theirs.shN, cloud.shN.numpy()), "the same Gaussians"
        if not normals:  # it writes none
            parts = [cloud.means, cloud.scales, cloud.quats, cloud.opacities, cloud.sh0[:, 0], cloud.shN]
            held = [part.numpy() for part in parts]
            writers["gsply"] = lambda: gsply.plywrite(str(folder / "theirs.ply"), *held)
    if plyfile is not None:
        readers["plyfile"] = lambda: by_plyfile(plyfile, path)
        assert np.array_equal(by_plyfile(plyfile, path)[2], cloud.shN.numpy()), "the same Gaussians"
        whole = plyfile.PlyData.read(str(path), mmap=False)
        writers["plyfile"] = lambda: whole.write(str(folder / "plyfile.ply"))
    for what, contestants in (("read", readers), ("write", writers)):
        times = machine.in_turns(contestants, repeats)
        ours = statistics.median(times["sparse3d"])
        cells = [what, layout, f"{len(data) / 1e6:.0f}", machine.spread(times["sparse3d"])]
        for name in ("raw", "raw, not synced", "gsply", "plyfile"):
            found = times.get(name)
            cells.append(f"{machine.spread(found)}; {statistics.median(found) / ours:.2f}" if found else "-")
        table.add_row(*cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1_000_000, help="Gaussians (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the files are written (default: a temporary one)")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--ply-only", action="store_true", help="leave the other formats out")
    arguments = parser.parse_args()
    machine.use_threads(1)
    print(machine.words())
    cloud = cloud_of(arguments.count)
    table = Table(
        title=f"{arguments.count} Gaussians in .ply, 1 thread, {arguments.repeats} repeats; milliseconds: "
        "median (fastest - slowest); behind them the median over ours"
    )
    for name in ("what", "layout", "MB", "sparse3d", "raw", "raw, not synced", "gsply", "plyfile"):
        table.add_column(name)
    formats = Table(title="other formats; seconds")
    for name in ("file", "MB", "write", "read"):
        formats.add_column(name)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for normals in (False, True):
            ply_rows(table, cloud, folder, normals, arguments.repeats)
        Console(width=170).print(table)
        for other in () if arguments.ply_only else OTHERS:
            path = folder / other
            write = machine.in_turns({"w": lambda path=path: write_splats(path, cloud)}, 1)["w"][0]
            read = machine.in_turns({"r": lambda path=path: read_splats(path)}, 1)["r"][0]
            formats.add_row(
                other, f"{path.stat().st_size / 1e6:.1f}", f"{write / 1e3:.2f}", f"{read / 1e3:.2f}"
            )
    if not arguments.ply_only:
        Console(width=170).print(formats)


if __name__ == "__main__":
    main()
