"""What is switched on by itself where there are few photos: the preset, chosen by measurement (BENCHMARKS.md,
tools/ablate_few_views.py).

With many photos the colours alone say where things are. With a dozen or fewer, a field explains them by haze
before the cameras; of what is known against that, the preset takes what helped on the scenes that we
measured, and leaves out what did not.
"""

import logging
from dataclasses import replace

from sparse3d.data.photos import PosedPhotos
from sparse3d.fields.background import LearnedBackgroundConfig
from sparse3d.fields.build import FieldConfig
from sparse3d.fields.nerf import NeRFConfig
from sparse3d.fields.priors import DistortionConfig, OcclusionConfig
from sparse3d.fields.voxel_field import VoxelFieldConfig
from sparse3d.recipes.radiance.config import PriorsConfig, RadianceConfig
from sparse3d.recipes.radiance.priors import describe_priors
from sparse3d.recipes.run_folder import changed_keys

FEW = 12  # photos

# Total variation of the densities: 1e-6 for three photos, and so much less for each more that eight have
# 3e-8. More blurs what eight photos tell, less leaves the haze of three (BENCHMARKS.md).
TV_AT_THREE, TV_FALL = 1e-6, 0.5
TV_OF_SPLITS = 0.03  # of that once the voxels are split: what is found coarsely may then have edges

# Where nobody knows what stands behind the cube, nothing says either where the cube is empty; colours of
# directions take what goes on beyond it (a table, a dark hall), and smoothness counts for more.
BACKGROUND = LearnedBackgroundConfig(sh_degree=3)
TV_BEFORE_UNKNOWN = 10.0  # times as much

# With fewer photos colours look the same from everywhere: what three see of a place is explained by a colour
# for each of them as well as by where it lies (DTU's scan24: 14.5 dB with harmonics of degree 1, 17.3
# without; of nine photos 20.3 with them, 19.0 without).
FEWEST_WITH_HARMONICS = 6

FINE_END = 0.9  # of the training: when all frequencies are there (FreeNeRF, arXiv 2303.07418)

_log = logging.getLogger(__name__)


def decide_priors(config: RadianceConfig, photos: PosedPhotos) -> RadianceConfig:
    """The config with `auto` priors made definite, and told in the log: the preset for few photos; else
    none, but for spaces with a contraction their distortion."""
    if config.priors != "auto":
        return config
    if len(photos) > FEW:
        return replace(config, priors=_of_space(config.model) or "none")
    decided = few_view_preset(config, len(photos), _background_unknown(config, photos))
    assert isinstance(decided.priors, PriorsConfig)
    changed = [
        f"{part}.{key}"
        for part in ("model", "refine")
        for key in changed_keys(getattr(config, part), getattr(decided, part))
    ]
    if decided.background != config.background:
        changed.append("background")
    _log.warning(
        "%d photos: the preset for few views is on (%s); priors=none switches it off",
        len(photos),
        ", ".join([describe_priors(decided.priors), *changed]),
    )
    return decided


def few_view_preset(config: RadianceConfig, count: int, background_unknown: bool = False) -> RadianceConfig:
    """The config with the preset for `count` photos. A total variation that the config has stays."""
    background = BACKGROUND if background_unknown else config.background
    return replace(
        config,
        priors=replace(_of_space(config.model) or PriorsConfig(), occlusion=OcclusionConfig()),
        model=_smooth(config.model, count, background != "data"),
        refine=replace(config.refine, min_photos=max(config.refine.min_photos, min(2, count))),
        background=background,
    )


def _background_unknown(config: RadianceConfig, photos: PosedPhotos) -> bool:
    """Whether voxels of a cube alone are before what neither the config, nor the files, nor an opacity of the
    photos tells. Other fields were not measured and stay as they are."""
    return (
        isinstance(config.model, VoxelFieldConfig)
        and not config.model.space.unbounded
        and (config.background, config.data.background) == ("data", "auto")
        and photos.capture.background is None
        and not any(photos.has_alpha(row) for row in range(len(photos)))
    )


def _of_space(model: FieldConfig) -> PriorsConfig | None:
    """A ray that never ends may meet a little everywhere, however many photos there are."""
    return PriorsConfig(distortion=DistortionConfig()) if model.space.unbounded else None


def _smooth(model: FieldConfig, count: int, background_learned: bool) -> FieldConfig:
    """Smooth densities for voxels, which are coarse before they are fine anyhow; frequencies that come in one
    after the other for NeRF. Others were not measured and stay as they are."""
    if isinstance(model, VoxelFieldConfig):
        if count < FEWEST_WITH_HARMONICS:
            model = replace(model, sh_degree=0)
        if model.tv_density > 0:
            return model
        weight = TV_AT_THREE * TV_FALL ** max(0, count - 3)
        if background_learned:
            weight *= TV_BEFORE_UNKNOWN
        return replace(model, tv_density=weight, tv_fall=TV_OF_SPLITS)
    if isinstance(model, NeRFConfig):
        return replace(model, encoding=replace(model.encoding, fine_end=model.encoding.fine_end or FINE_END))
    return model
