"""Runs the networks on the real spconv and writes what came out. Usage: run_peer.py FOLDER (torch and
spconv only)."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
import networks  # noqa: E402

# spconv's CPU kernels race: with more than one thread its sums are wrong.
torch.set_num_threads(1)

import spconv.pytorch as spconv  # noqa: E402
from spconv.pytorch.utils import PointToVoxel  # noqa: E402

if not torch.cuda.is_available():
    # Its backward asks CUDA for a stream, on the CPU too, and does not use it there.
    spconv.ops.get_current_stream = lambda: 0

for name in networks.CASES:
    torch.save(networks.run(spconv, name), Path(sys.argv[1]) / f"{name}.pt")
torch.save(networks.voxelized(PointToVoxel), Path(sys.argv[1]) / "points.pt")
print(spconv.__name__, __import__("spconv").__version__, torch.__version__)
