"""3D sparse perception and reconstruction on one sparse voxel tensor."""

__version__ = "0.1.0"
