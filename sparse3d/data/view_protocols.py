"""Which photos are held out, and which few are trained on: the choices that published figures refer to.

Hold-out: the splits of the files where they name some, else every 8th photo in the order of their names
(Mildenhall et al. 2019, LLFF). Few views, by the format of the capture:

    LLFF, COLMAP, transforms   K spread evenly over the training photos (RegNeRF, arXiv 2112.00724: 3, 6, 9)
    DTU                        the first K of 25 22 28 40 44 48 0 8 13; tests leave out 15 views that
                               pixelNeRF (arXiv 2012.02190) excludes for their light
    NeRF-synthetic             26 86 2 55 75 93 16 73 for 8 (DietNeRF, arXiv 2104.00677; FreeNeRF, arXiv
                               2303.07418), tested on every 8th of the 200 test views; scenes of our own in
                               that layout have fewer: K spread evenly, tested on all
    SpaRe                      the input and test views that its own split file names (arXiv 2409.15041)
"""

from collections.abc import Sequence

import numpy as np

from sparse3d.io.captures import Capture

HOLD_OUT = 8

_DTU_TRAIN = (25, 22, 28, 40, 44, 48, 0, 8, 13)
_DTU_EXCLUDED = (3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 36, 37, 38, 39)
_BLENDER_8 = (26, 86, 2, 55, 75, 93, 16, 73)
_BLENDER_TEST_EVERY = 8
_BLENDER_TEST_FROM = 100  # test views are numbered up to 199 in the data set itself, some may be missing


def split_rows(capture: Capture, split: str, views: int | None = None) -> list[int]:
    """Rows of `capture.views` that belong to a split ("all", "train", "val", "test"), with `views` the K of
    the few-view protocol.

    ValueError for a split that there is not and for a K that the protocol does not know or has not enough
    photos for.
    """
    rows = range(len(capture.views))
    by_name = sorted(rows, key=lambda row: capture.views[row].name)
    splits: dict[str, Sequence[int]] = dict(capture.splits)
    if "train" not in splits:
        splits["test"] = by_name[::HOLD_OUT]
        splits["train"] = [row for place, row in enumerate(by_name) if place % HOLD_OUT]
    if views is not None:
        if views < 1:
            raise ValueError(f"views is {views}, expected at least 1")
        splits |= _few_views(capture, splits, views)
    splits["all"] = sorted({*splits["train"], *splits["test"]}) if views is not None else rows
    if split not in splits:
        raise ValueError(f"no split {split!r}; this {capture.format} capture has {', '.join(sorted(splits))}")
    return list(splits[split])


def _few_views(capture: Capture, splits: dict[str, Sequence[int]], count: int) -> dict[str, Sequence[int]]:
    match capture.format:
        case "dtu" | "mvsnet":
            return _dtu(capture, count)
        case "blender" if count == len(_BLENDER_8) and _highest(capture, splits["train"]) >= max(_BLENDER_8):
            train = _numbered(capture, _BLENDER_8, splits["train"], count)
            return {"train": train, "test": _tested(capture, splits.get("test", ()))}
        case "blender":
            train = _spread(sorted(splits["train"], key=lambda row: capture.views[row].number), count)
            return {"train": train, "test": _tested(capture, splits.get("test", ()))}
        case "spare":
            listed = splits["train"]
            if count != len(listed):
                raise ValueError(
                    f"views={count}, but the split file of this scene names {len(listed)} input views"
                )
            return {}
        case _:
            return {"train": _spread(splits["train"], count)}


def _highest(capture: Capture, rows: Sequence[int]) -> int:
    return max((capture.views[row].number for row in rows), default=0)


def _tested(capture: Capture, rows: Sequence[int]) -> list[int]:
    numbers = [capture.views[row].number for row in rows]
    every = _BLENDER_TEST_EVERY if _highest(capture, rows) >= _BLENDER_TEST_FROM else 1
    return [row for row, number in zip(rows, numbers, strict=True) if number % every == 0]


def _dtu(capture: Capture, count: int) -> dict[str, Sequence[int]]:
    if count > len(_DTU_TRAIN):
        raise ValueError(f"views={count}: the protocol of DTU has at most {len(_DTU_TRAIN)} (3, 6 or 9)")
    left_out = {*_DTU_TRAIN, *_DTU_EXCLUDED}
    rows = range(len(capture.views))
    return {
        "train": _numbered(capture, _DTU_TRAIN[:count], rows, count),
        "test": [row for row in rows if capture.views[row].number not in left_out],
    }


def _numbered(capture: Capture, numbers: Sequence[int], rows: Sequence[int], count: int) -> list[int]:
    """The rows with these numbers, in their order."""
    row_of = {capture.views[row].number: row for row in rows}
    lacking = [number for number in numbers if number not in row_of]
    if lacking:
        raise ValueError(
            f"views={count} of {capture.format} trains on the views {', '.join(map(str, numbers))}; "
            f"{', '.join(map(str, lacking))} are not here"
        )
    return [row_of[number] for number in numbers]


def _spread(rows: Sequence[int], count: int) -> list[int]:
    if count > len(rows):
        raise ValueError(f"views={count}, but there are only {len(rows)} training photos")
    return [rows[round(place)] for place in np.linspace(0, len(rows) - 1, count)]
