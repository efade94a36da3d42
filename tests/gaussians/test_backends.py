"""Our kernels and gsplat's behind one function. Where gsplat itself cannot run, a stand-in with its
signatures shows that it is asked the right things."""

import sys
from types import ModuleType

import pytest
import torch

from sparse3d.errors import MissingExtraError
from sparse3d.gaussians import backends
from sparse3d_ops.splat_blend import blend_splats
from sparse3d_ops.splat_projection import project_gaussians
from sparse3d_ops.splat_tiles import list_splats

SIZE = 50, 37


def scene(device="cpu", dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    means = torch.rand(60, 3, generator=g) * 1.6 - 0.8 + torch.tensor([0, 0, 3.0])
    scales = torch.exp(torch.randn(60, 3, generator=g) * 0.4) * 0.1
    splats = means, torch.randn(60, 4, generator=g), scales, torch.rand(60, generator=g) * 0.9 + 0.05
    lens = torch.tensor([50.0, 48, 25.2, 18.1])
    rest = torch.eye(4), lens, torch.rand(60, 5, generator=g), torch.randn(37, 50, 5, generator=g)
    return [x.to(device, dtype) for x in (*splats, *rest)]


def drawn(backend, device="cpu", dtype=torch.float32):
    """Image, transmittance, and the gradients of the splats and of `absolute`."""
    *splats, pose, lens, features, weight = scene(device, dtype)
    inputs = [x.requires_grad_() for x in (*splats, features)]
    projected = project_gaussians(*splats, pose, lens, SIZE)
    absolute = torch.zeros_like(projected.means2d, requires_grad=True)
    tiles = backends.tiles_of(projected, SIZE, backend)
    image, through = backends.blend(projected, inputs[3], features, tiles, SIZE, absolute)
    ((image * weight).sum() + through.square().sum()).backward()
    return [image.detach(), through.detach(), *(x.grad for x in (*inputs, absolute))]


def stand_in() -> ModuleType:
    """gsplat's three functions, of our own ops."""
    gsplat = ModuleType("gsplat")

    def isect_tiles(means2d, radii, depths, tile_size, tile_width, tile_height):
        assert radii.dtype == torch.int32 and tile_size == 16
        size = tile_width * 16, tile_height * 16
        gsplat.tiles = list_splats(means2d[0], radii[0].to(means2d.dtype), depths[0], size)
        return None, gsplat.tiles.starts, gsplat.tiles.splats

    def isect_offset_encode(isect_ids, n_images, tile_width, tile_height):
        return isect_ids[:-1].reshape(n_images, tile_height, tile_width).int()

    class Rasterize(torch.autograd.Function):
        @staticmethod
        def forward(ctx, means2d, conics, colors, opacities, size):
            ctx.save_for_backward(means2d, conics, opacities, colors)
            ctx.size = size
            image, through = blend_splats(means2d[0], conics[0], opacities[0], colors[0], gsplat.tiles, size)
            return image[None], 1 - through[None, ..., None]

        @staticmethod
        def backward(ctx, of_image, of_alpha):
            inputs = [x[0].detach().requires_grad_() for x in ctx.saved_tensors]
            absolute = torch.zeros_like(inputs[0], requires_grad=True)
            with torch.enable_grad():
                seen = blend_splats(*inputs, gsplat.tiles, ctx.size, absolute)
            grads = torch.autograd.grad(seen, (*inputs, absolute), (of_image[0], -of_alpha[0, ..., 0]))
            ctx.saved_tensors[0].absgrad = grads[4][None]
            return grads[0][None], grads[1][None], grads[3][None], grads[2][None], None

    def rasterize_to_pixels(
        means2d,
        conics,
        colors,
        opacities,
        image_width,
        image_height,
        tile_size,
        isect_offsets,
        flatten_ids,
        absgrad,
    ):
        assert absgrad and isect_offsets.shape == (1, 3, 4) and len(flatten_ids) == len(gsplat.tiles.splats)
        return Rasterize.apply(means2d, conics, colors, opacities, (image_width, image_height))

    gsplat.isect_tiles, gsplat.isect_offset_encode = isect_tiles, isect_offset_encode
    gsplat.rasterize_to_pixels = rasterize_to_pixels
    return gsplat


def test_gsplat_is_asked_for_what_our_kernels_are(monkeypatch):
    monkeypatch.setitem(sys.modules, "gsplat", stand_in())
    for got, want in zip(drawn("gsplat"), drawn("sparse3d"), strict=True):
        torch.testing.assert_close(got, want)


def test_without_gsplat_or_a_gpu_our_kernels_draw(monkeypatch):
    for got, want in zip(drawn("auto"), drawn("sparse3d"), strict=True):
        assert torch.equal(got, want)
    monkeypatch.setitem(sys.modules, "gsplat", None)
    with pytest.raises(MissingExtraError, match=r"sparse3d\[gsplat\]"):
        drawn("gsplat")


def test_gsplat_and_our_kernels_draw_the_same():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here, which gsplat needs")
    pytest.importorskip(
        "gsplat", reason="gsplat is not installed; get it with: pip install 'sparse3d[gsplat]'"
    )
    assert backends.chosen("auto", torch.zeros(1, device="cuda")) == "gsplat"
    assert backends.chosen("auto", torch.zeros(1, device="cuda", dtype=torch.float64)) == "sparse3d"
    for got, want in zip(drawn("gsplat", "cuda"), drawn("sparse3d", "cuda"), strict=True):
        # A pixel ends one splat sooner, and alpha next to 1 / 255 may count in one of them.
        torch.testing.assert_close(got, want, rtol=1e-2, atol=1e-2 * float(want.abs().max()))
