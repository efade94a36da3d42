"""A cloud of Gaussians with the losses that it is trained by."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sparse3d.data.whole_photos import WholePhoto
from sparse3d.gaussians import few_views, losses
from sparse3d.gaussians.appearance import AppearanceEmbedding, Exposure
from sparse3d.gaussians.cloud import SH0, GaussianCloud
from sparse3d.gaussians.geometry import SplatGeometry, depth_normals, render_geometry
from sparse3d.gaussians.model import SplatModel
from sparse3d.gaussians.render import Shade, SplatRendering, SplatView, render
from sparse3d.gaussians.strategies import Statistics
from sparse3d.geometry.cameras import Camera
from sparse3d.recipes.splatting.config import SplatPriorsConfig, SplattingConfig
from sparse3d_ops.structural_similarity import ssim_map

DROP = 100  # what random numbers are for, beside those of strategies


class SplatTraining(nn.Module):
    """One cloud, or two that check each other, as the training loop takes them. `step` is set before each
    one; `seen` tells what it drew of each cloud. `unseen(step)` gives a camera between those of the photos,
    for priors that ask for one."""

    background: Tensor

    def __init__(
        self,
        clouds: list[SplatModel],
        config: SplattingConfig,
        background: tuple[float, float, float],
        unseen: Callable[[int], Camera] | None = None,
        appearance: Exposure | AppearanceEmbedding | None = None,
    ):
        super().__init__()
        self.splats = clouds[0]
        self.other = clouds[1] if len(clouds) > 1 else None
        self.config, self.unseen, self.appearance = config, unseen, appearance
        self.priors = config.priors if isinstance(config.priors, SplatPriorsConfig) else SplatPriorsConfig()
        self.register_buffer("background", torch.tensor(background), persistent=False)
        self.step, self.steps = 0, config.train.steps or 1
        self.seen: list[tuple[SplatModel, Statistics]] = []
        self._views: dict[int, SplatView] = {}

    @property
    def clouds(self) -> list[SplatModel]:
        """Those that are trained; the first one is what comes out."""
        return [self.splats] if self.other is None else [self.splats, self.other]

    def loss(self, batch: WholePhoto) -> dict[str, Tensor]:
        """`color`, and the other terms that the config has."""
        self.seen, total = [], {}
        for number, splats in enumerate(self.clouds):
            terms = self._of_photo(splats, batch) | self._of_cloud(splats)
            total |= {name if number == 0 else f"{name}_{number}": term for name, term in terms.items()}
        if self.unseen is not None:
            total |= self._of_unseen(self.unseen(self.step))
        return total

    # ---- one photo ---------------------------------------------------------------------------------------

    def _of_photo(self, splats: SplatModel, batch: WholePhoto) -> dict[str, Tensor]:
        view, cloud = self._view(batch), splats.cloud
        if self.priors.drop is not None:
            generator = splats.generator(self.step, DROP)
            cloud = few_views.with_dropped(cloud, self.priors.drop, self.step / self.steps, generator)
        seen = self._drawn(cloud, view, self._shade(cloud, batch.row))
        self.seen.append((splats, seen.splats))
        color = seen.color
        if isinstance(self.appearance, Exposure):
            color = self.appearance(color, batch.row)
        terms = {"color": self._photometric(color, batch)}
        if isinstance(self.appearance, Exposure):
            assert self.config.appearance is not None
            terms["exposure"] = self.config.appearance.anchored * self.appearance.drift()  # pyright: ignore
        if isinstance(seen, SplatGeometry):
            terms |= self._of_surface(seen, view)
        return terms | self._of_depth(splats, seen, view, batch)

    def _view(self, batch: WholePhoto) -> SplatView:
        """Of a photo, which is taken again and again."""
        like = self.splats.means
        known = self._views.get(batch.row)
        if known is None or known.intrinsics.device != like.device:
            known = self._views[batch.row] = SplatView.of(batch.camera, like)
        return known

    def _shade(self, cloud: GaussianCloud, photo: int) -> Shade | None:
        """What the photo's appearance makes of the colours of Gaussians."""
        appearance = self.appearance
        if not isinstance(appearance, AppearanceEmbedding):
            return None
        return lambda shades: appearance(shades, 0.5 + SH0 * cloud.sh0[:, 0], photo)

    def _drawn(
        self, cloud: GaussianCloud, view: SplatView, shade: Shade | None = None
    ) -> SplatRendering | SplatGeometry:
        wants = cloud.surfels or self.config.loss.surface or self.priors.floaters
        draw = render_geometry if wants else render
        degree = self.step // self.config.sh_every
        absolute = self.config.strategy.wants_absolute
        return draw(cloud, view, self.background, self.config.drawing, degree, shade, absolute)

    def _photometric(self, color: Tensor, batch: WholePhoto) -> Tensor:
        loss, wanted = self.config.loss, batch.rgb
        if batch.mask is not None:  # what is hidden is as it should be
            color = torch.where(batch.mask[..., None], color, wanted)
        error = color - wanted
        total = loss.absolute * error.abs().mean() + loss.squared * error.square().mean()
        if loss.similarity:
            total = total + loss.similarity * (1 - ssim_map(color, wanted).mean())
        return total

    def _of_surface(self, seen: SplatGeometry, view: SplatView) -> dict[str, Tensor]:
        terms, progress = {}, self.step / self.steps
        surface, floating = self.config.loss.surface, self.priors.floaters
        if surface is not None and progress >= surface.distortion_begin:
            terms["distortion"] = surface.distortion * seen.distortion.mean()
        if surface is not None and progress >= surface.normal_begin:
            of_depth = depth_normals(seen.depth, view) * seen.alpha.detach()[..., None]
            terms["normal"] = surface.normal * (seen.alpha.detach() - (seen.normal * of_depth).sum(2)).mean()
        if floating is not None:
            off = few_views.floaters(seen.depth, seen.median, seen.alpha, floating.least_alpha)
            terms["floaters"] = floating.weight * off
        return terms

    def _of_depth(
        self, splats: SplatModel, seen: SplatRendering | SplatGeometry, view: SplatView, batch: WholePhoto
    ) -> dict[str, Tensor]:
        loss, near, terms = self.config.loss, self.priors.near_lens, {}
        if loss.alpha is not None and batch.alpha is not None:
            terms["alpha"] = loss.alpha.weight * losses.alpha_error(seen.alpha, batch.alpha)
        if near is not None:
            before = few_views.near_lens(splats.cloud, view.centre, seen.depth, seen.alpha, near.share)
            terms["near_lens"] = near.weight * before
        if batch.depth is not None and loss.depth is not None:
            unit = float(splats.scene_scale)
            off = losses.depth_error(seen.depth, seen.alpha, batch.depth, unit, loss.depth)
            terms["depth"] = loss.depth.weight * off
        if batch.depth is not None and loss.relative_depth is not None:
            terms["relative_depth"] = losses.relative_depth_error(
                seen.depth, seen.alpha, batch.depth, loss.relative_depth
            )
        return terms

    def _of_cloud(self, splats: SplatModel) -> dict[str, Tensor]:
        loss, terms = self.config.loss, {}
        if loss.opacity is not None:
            terms["opacity"] = loss.opacity.weight * losses.opacity_mean(splats.opacities)
        if loss.scale is not None:
            reach = splats.scene_scale.to(splats.scales)
            terms["scale"] = loss.scale.weight * losses.scale_mean(splats.scales, reach)
        return terms

    # ---- views that nobody took ----------------------------------------------------------------------------

    def _of_unseen(self, camera: Camera) -> dict[str, Tensor]:
        view = SplatView.of(camera, self.splats.means)
        drawn, terms = [self._drawn(splats.cloud, view) for splats in self.clouds], {}
        if self.priors.unseen is not None:
            config = self.priors.unseen
            rough = [few_views.unseen_roughness(d.depth, d.alpha, d.color, config.edge) for d in drawn]
            terms["unseen"] = config.weight * torch.stack(rough).sum()
        if self.priors.co is not None and self.step >= self.priors.co.start_step:
            apart = few_views.disagreement(drawn[0].color, drawn[1].color, self.priors.co.ssim)
            terms["disagreement"] = self.priors.co.weight * apart
        return terms

    def reshape_for(self, tensors: dict[str, Tensor]) -> None:
        """Take on the numbers of Gaussians of a state dict, so that it can be loaded."""
        for prefix, splats in zip(("splats.", "other."), self.clouds, strict=False):
            splats.reshape_for(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )
