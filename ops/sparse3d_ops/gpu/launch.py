"""How every Triton body is launched, on the device of its tensors: mostly one lane an item, in blocks.

`items` may pass 2^31: kernels number their lanes in int64. Multiplications and additions are not fused, so
that a lane rounds as the numba bodies do.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def lanes(BLOCK: tl.constexpr):
    """Numbers of the items of this program."""
    return tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)


def launch(kernel: Any, items: int, block: int, first: Tensor, *rest: Any, **constants: Any) -> None:
    """Run a kernel over `items` lanes, `block` (a power of two) to a program; nothing is launched for none.

    Tensors, numbers and constants follow in the kernel's order; it takes its BLOCK and the number of items as
    `items`. Triton launches on the current device, which need not be that of the tensors.
    """
    if items == 0:
        return
    # Four lanes to a thread, so that it has four loads under way: most kernels wait for memory.
    constants.setdefault("num_warps", max(1, block // 128))
    with torch.cuda.device_of(first):
        grid = (triton.cdiv(items, block),)
        kernel[grid](first, *rest, items=items, BLOCK=block, enable_fp_fusion=False, **constants)


def launch_grid(
    kernel: Any, grid: tuple[int, ...], first: Tensor, *rest: Any, fused: bool = True, **constants: Any
) -> None:
    """Run a kernel that numbers its programs itself. It multiplies and adds in one rounding, except where
    two kernels must see the same bits: not `fused`.

    Numbers of rows change from call to call: kernels name them in `do_not_specialize`, or Triton would
    compile anew where one is 1 or divides by 16.
    """
    with torch.cuda.device_of(first):
        kernel[grid](first, *rest, enable_fp_fusion=fused, **constants)
