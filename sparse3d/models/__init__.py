"""Networks: each takes a batch and gives losses or predictions."""

from sparse3d.models.centerpoint import CenterPoint as CenterPoint
from sparse3d.models.centerpoint import CenterPointConfig as CenterPointConfig
from sparse3d.models.dsvt import DSVT as DSVT
from sparse3d.models.dsvt import DSVTConfig as DSVTConfig
