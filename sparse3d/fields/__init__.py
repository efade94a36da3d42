"""Radiance fields: density and colour in space, on the sparse tensor, the voxel hash and the ray ops."""

from sparse3d.fields.protocol import RadianceField as RadianceField
from sparse3d.fields.protocol import Rendered as Rendered
from sparse3d.fields.protocol import Traced as Traced
