"""Where the photos of a capture are: `images/`, or a copy at a fraction of the size as `images_8/`."""

from pathlib import Path

from sparse3d.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")


def image_folder(root: Path, scale: float, name: str = "images") -> Path:
    """The folder whose photos are to be read for a scale: the stored copy of exactly that fraction, else the
    full size, else the largest copy. DataError where there is none."""
    fraction = round(1 / scale)
    stored = root / f"{name}_{fraction}"
    if fraction > 1 and abs(fraction * scale - 1) < 1e-6 and stored.is_dir():
        return stored
    if (root / name).is_dir():
        return root / name
    copies = [p for p in root.glob(f"{name}_*") if p.is_dir() and p.name.removeprefix(f"{name}_").isdigit()]
    if not copies:
        raise DataError(root, f"no folder {name}, nor {name}_2, {name}_4, {name}_8")
    return min(copies, key=lambda p: int(p.name.removeprefix(f"{name}_")))


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder in the order of their names."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def same_stem(folder: Path, name: str, more: tuple[str, ...] = ()) -> Path | None:
    """The image in `folder` that is called `name`, or the same with another ending (a .jpg may be stored as
    .png in a smaller copy); also name.png for name, as masks of COLMAP are called. `more` endings to try."""
    path = folder / name
    if path.is_file():
        return path
    for suffix in (*SUFFIXES, *more):
        for other in (path.with_suffix(suffix), path.with_name(path.name + suffix)):
            if other.is_file():
                return other
    return None
