"""Networks: each takes a batch and gives losses or predictions."""

from sparse3d.models.centerpoint import CenterPoint as CenterPoint
from sparse3d.models.centerpoint import CenterPointConfig as CenterPointConfig
