"""3D sparse perception and reconstruction on one sparse voxel tensor."""

from sparse3d.tensor import SparseTensor as SparseTensor
from sparse3d.tensor import cat as cat

__version__ = "0.1.0"
