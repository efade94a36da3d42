"""Depth maps and LiDAR sweeps of known places, fused into one surface."""

from sparse3d.fusion.streaming import StreamedBlocks as StreamedBlocks
from sparse3d.fusion.volume import RayCast as RayCast
from sparse3d.fusion.volume import TSDFVolume as TSDFVolume
