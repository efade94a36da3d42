"""What is assumed of a scene that few photos see.

Found on the three spheres; BENCHMARKS.md has what each part brings. With few photos most of space is seen by
one of them or none, and each Gaussian too many is one that can go wrong: so there are fewer.
"""

import logging
from dataclasses import fields, replace

from sparse3d.data.photos import PosedPhotos
from sparse3d.gaussians.few_views import OpacityDropConfig, SmoothUnseenConfig
from sparse3d.gaussians.losses import OpacityConfig
from sparse3d.gaussians.strategies import MCMCStrategy
from sparse3d.recipes.radiance.preset import FEW
from sparse3d.recipes.splatting.config import SplatPriorsConfig, SplattingConfig

_log = logging.getLogger(__name__)

VERY_FEW = 4  # photos, up to which views that nobody took must be smooth, and opacity has a price
GAUSSIANS, GAUSSIANS_A_PHOTO = 1500, 200


def decide_priors(config: SplattingConfig, photos: PosedPhotos) -> SplattingConfig:
    """The config with `auto` priors made definite, and told in the log."""
    if config.priors != "auto":
        return config
    if len(photos) > FEW:
        return replace(config, priors="none")
    decided = few_view_preset(config, len(photos))
    assert isinstance(decided.priors, SplatPriorsConfig)
    names = [
        field.name for field in fields(decided.priors) if getattr(decided.priors, field.name) is not None
    ]
    names += ["loss.opacity"] if decided.loss != config.loss else []
    names += ["fewer Gaussians"] if decided.start != config.start else []
    _log.warning(
        "%d photos: the preset for few views is on (%s); priors=none switches it off",
        len(photos),
        ", ".join(names),
    )
    return decided


def few_view_preset(config: SplattingConfig, count: int) -> SplattingConfig:
    """The config with the preset for `count` photos. A price of opacity that the config has of its own
    stays."""
    most = GAUSSIANS + GAUSSIANS_A_PHOTO * count
    start = replace(config.start, count=min(config.start.count, most))
    strategy = config.strategy
    if isinstance(strategy, MCMCStrategy):
        strategy = replace(strategy, most=min(strategy.most, most))
    if count > VERY_FEW:
        priors = SplatPriorsConfig(drop=OpacityDropConfig(rate=0.2))
        return replace(config, priors=priors, start=start, strategy=strategy)
    priors = SplatPriorsConfig(
        drop=OpacityDropConfig(rate=0.6, grows=False), unseen=SmoothUnseenConfig(weight=1.0)
    )
    loss = replace(config.loss, opacity=config.loss.opacity or OpacityConfig(weight=0.003))
    return replace(config, priors=priors, loss=loss, start=start, strategy=strategy)
