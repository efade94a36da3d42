"""What each prior brings where there are few views: trains the three spheres without priors, with each prior
alone, with the preset, and with the preset less each of its parts; prints a table in Markdown.

    python tools/ablate_few_views.py --views 3 8 --seeds 0 1 --out runs/ablation

What --out holds already is not trained again, so that an ablation can be continued and added to. Depth is
compared with that of the spheres themselves. Ranking and measured depth are given the spheres' depth maps,
ranking only their order.
"""

import argparse
import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch

from sparse3d import config as configs
from sparse3d.data.three_spheres import DEPTH_UNIT, ThreeSpheresConfig, write_three_spheres
from sparse3d.fields.depth_priors import DepthRankingConfig, MetricDepthConfig, UnseenViewsConfig
from sparse3d.fields.priors import (
    DistortionConfig,
    OcclusionConfig,
    OpacityEntropyConfig,
    SilhouetteConfig,
    SparsityConfig,
)
from sparse3d.recipes.radiance import reconstruct as radiance
from sparse3d.recipes.radiance.config import PriorsConfig, RadianceConfig
from sparse3d.recipes.radiance.preset import few_view_preset
from sparse3d.recipes.run_folder import RunFolder, changed_keys

ALONE = {
    "occlusion": OcclusionConfig(),
    "distortion": DistortionConfig(),
    "sparsity": SparsityConfig(),
    "opacity_entropy": OpacityEntropyConfig(),
    "silhouette": SilhouetteConfig(),
    "unseen": UnseenViewsConfig(),
    "ranking": DepthRankingConfig(),
    "depth": MetricDepthConfig(),
}
FIGURES = ("psnr", "ssim", "depth_relative", "depth_rmse")


def variants(plain: RadianceConfig, count: int, depth: Path) -> Iterator[tuple[str, RadianceConfig]]:
    """Names and configs of what is compared."""
    plain = replace(plain, priors=PriorsConfig())
    preset = few_view_preset(plain, count)
    assert isinstance(preset.priors, PriorsConfig)
    yield "none", plain
    yield from (
        (f"{key.removeprefix('model.')} alone", change) for key, change in _of_preset_alone(plain, preset)
    )
    for name, prior in ALONE.items():
        prior = getattr(preset.priors, name) or prior
        data = replace(plain.data, depth=str(depth), depth_unit=DEPTH_UNIT)
        data = data if name in ("ranking", "depth") else plain.data
        yield f"{name} alone", replace(plain, data=data, priors=PriorsConfig(**{name: prior}))
    yield "preset", preset
    for key, change in _of_preset_alone(preset, plain):
        yield f"preset less {key}", change
    for f in fields(PriorsConfig):
        if getattr(preset.priors, f.name) is not None:
            yield f"preset less {f.name}", replace(preset, priors=replace(preset.priors, **{f.name: None}))


def _of_preset_alone(one: RadianceConfig, other: RadianceConfig) -> Iterator[tuple[str, RadianceConfig]]:
    """The first config with one key at a time as in the other, where they differ beside the priors."""
    for part in ("model", "refine"):
        mine, theirs = getattr(one, part), getattr(other, part)
        for key in changed_keys(mine, theirs):
            if hasattr(theirs, key):
                yield f"{part}.{key}", replace(one, **{part: replace(mine, **{key: getattr(theirs, key)})})


def run(config: RadianceConfig, folder: Path) -> dict[str, float]:
    """Train and judge, or read what was found before."""
    metrics = RunFolder(folder).evaluation / "test" / "metrics.json"
    if not metrics.is_file():
        radiance.train(config, folder, if_begun=True)
        radiance.evaluate(folder)
    found = json.loads(metrics.read_text())
    return {name: found.get(name, {}).get("mean", float("nan")) for name in FIGURES}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="changes of the config of all runs")
    parser.add_argument("--views", type=int, nargs="+", default=[3, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", metavar="WORD", help="variants whose name holds one of these")
    parser.add_argument("--config", default="voxels_three_spheres")
    parser.add_argument("--out", type=Path, required=True, help="folder of the scene and the runs")
    arguments = parser.parse_args()
    print(f"`python {' '.join(sys.argv)}`\n")
    print(f"{torch.get_num_threads()} threads of {platform.processor() or platform.machine()}\n")
    for count in arguments.views:
        scene = arguments.out / f"scene_{count}"
        if not (scene / "transforms_test.json").is_file():
            write_three_spheres(scene, ThreeSpheresConfig(views=count))
        changes = [f"data.root={scene}", *arguments.overrides]
        plain = configs.load(RadianceConfig, arguments.config, changes)
        size = ThreeSpheresConfig().size
        print(f"{count} views of {size} x {size}, {plain.train.steps} steps, seeds {arguments.seeds}\n")
        print("| | PSNR, dB | SSIM | depth, rel. | depth, RMSE m |\n|---|---|---|---|---|")
        for name, config in variants(plain, count, scene / "depth"):
            if arguments.only and not any(word in name for word in arguments.only):
                continue
            found = []
            for seed in arguments.seeds:
                seeded = replace(config, train=replace(config.train, seed=seed))
                found.append(run(seeded, arguments.out / f"{count}_{name.replace(' ', '_')}_{seed}"))
            means = {figure: np.mean([one[figure] for one in found]) for figure in FIGURES}
            digits = (".2f", ".3f", ".4f", ".4f")
            cells = [format(mean, digit) for mean, digit in zip(means.values(), digits, strict=True)]
            if len(found) > 1:
                cells[0] += f" ± {np.std([one['psnr'] for one in found]):.2f}"
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
        print()


if __name__ == "__main__":
    main()
