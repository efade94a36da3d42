"""What is assumed of a scene that few photos see."""

import logging
from dataclasses import fields, replace

from sparse3d.data.photos import PosedPhotos
from sparse3d.gaussians.few_views import OpacityDropConfig, SmoothUnseenConfig
from sparse3d.recipes.radiance.preset import FEW
from sparse3d.recipes.splatting.config import SplatPriorsConfig, SplattingConfig

_log = logging.getLogger(__name__)

# Found on the three spheres; BENCHMARKS.md has what each brings.
PRESET = SplatPriorsConfig(drop=OpacityDropConfig(), unseen=SmoothUnseenConfig())


def decide_priors(config: SplattingConfig, photos: PosedPhotos) -> SplattingConfig:
    """The config with `auto` priors made definite, and told in the log."""
    if config.priors != "auto":
        return config
    if len(photos) > FEW:
        return replace(config, priors="none")
    names = [field.name for field in fields(PRESET) if getattr(PRESET, field.name) is not None]
    _log.warning(
        "%d photos: the preset for few views is on (%s); priors=none switches it off",
        len(photos),
        ", ".join(names),
    )
    return replace(config, priors=PRESET)
