"""minidrive: a procedural street, scanned by a spinning LiDAR, written in the layout of KITTI."""

from sparse3d.data.minidrive.config import EgoConfig as EgoConfig
from sparse3d.data.minidrive.config import LabelConfig as LabelConfig
from sparse3d.data.minidrive.config import LidarConfig as LidarConfig
from sparse3d.data.minidrive.config import MinidriveConfig as MinidriveConfig
from sparse3d.data.minidrive.config import WorldConfig as WorldConfig
from sparse3d.data.minidrive.drive import DriveConfig as DriveConfig
from sparse3d.data.minidrive.drive import DriveScan as DriveScan
from sparse3d.data.minidrive.drive import simulate_drive as simulate_drive
from sparse3d.data.minidrive.scene import MinidriveScene as MinidriveScene
from sparse3d.data.minidrive.scene import simulate as simulate
from sparse3d.data.minidrive.write import write_minidrive as write_minidrive
from sparse3d.data.minidrive.write_drive import write_drives as write_drives
