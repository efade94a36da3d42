"""Every kind of field by its config."""

from dataclasses import replace

from sparse3d.fields.frustum import FrustumConfig
from sparse3d.fields.hash_field import HashField, HashFieldConfig
from sparse3d.fields.low_rank import LowRankField, LowRankFieldConfig
from sparse3d.fields.nerf import NeRF, NeRFConfig
from sparse3d.fields.space import Vector
from sparse3d.fields.volsdf import VolSDF, VolSDFConfig
from sparse3d.fields.voxel_field import VoxelField, VoxelFieldConfig

FieldConfig = VoxelFieldConfig | HashFieldConfig | LowRankFieldConfig | NeRFConfig | VolSDFConfig
Field = VoxelField | HashField | LowRankField | NeRF | VolSDF


def build_field(config: FieldConfig) -> Field:
    """A fresh field; seed first."""
    if isinstance(config, VoxelFieldConfig):
        return VoxelField(config)
    if isinstance(config, HashFieldConfig):
        return HashField(config)
    if isinstance(config, LowRankFieldConfig):
        return LowRankField(config)
    if isinstance(config, NeRFConfig):
        return NeRF(config)
    return VolSDF(config)


def in_cube(config: FieldConfig, low: Vector, side: float) -> FieldConfig:
    """The config with another cube: the corner with the smallest coordinates and the side, metres."""
    return replace(config, space=replace(config.space, low=low, side=side))


def in_frustum(config: FieldConfig, frustum: FrustumConfig) -> FieldConfig:
    """The config with another frustum."""
    return replace(config, space=replace(config.space, frustum=frustum))
