"""Which scenes of nuScenes train and which validate: the split that its benchmark fixed."""

from collections.abc import Sequence

# The 150 scenes of "val", as ranges of their numbers, ends included. "train" are the other 700 of trainval.
_VAL = (
    *((3, 3), (12, 18), (35, 36), (38, 39), (92, 110), (221, 221), (268, 278), (329, 332), (344, 346)),
    *((519, 524), (552, 565), (625, 627), (629, 630), (632, 638), (770, 771), (775, 775), (777, 778)),
    *((780, 784), (794, 800), (802, 802), (904, 917), (919, 931), (962, 963), (966, 969), (971, 972)),
    (1059, 1073),
)
VAL = tuple(f"scene-{number:04d}" for first, last in _VAL for number in range(first, last + 1))
MINI_VAL = ("scene-0103", "scene-0916")


def version_of(split: str, version: str) -> str:
    """The folder of tables for a split; `version` for all but those that have their own."""
    return {"mini_train": "v1.0-mini", "mini_val": "v1.0-mini", "test": "v1.0-test"}.get(split, version)


def scenes_of(split: str, scenes: Sequence[str]) -> list[str] | None:
    """Which of a version's scenes are in a split, None for an unknown split. A scene is a split of its own.

    "val" names all of its scenes, so that it shows when some of them are not there.
    """
    match split:
        case "train":
            return [name for name in scenes if name not in VAL]
        case "val":
            return list(VAL)
        case "mini_train":
            return [name for name in scenes if name not in MINI_VAL]
        case "mini_val":
            return list(MINI_VAL)
        case "trainval" | "test":
            return list(scenes)
    return [split] if split in scenes else None
