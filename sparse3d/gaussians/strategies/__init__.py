"""How a cloud grows and shrinks while it is trained. A strategy is a frozen dataclass of its paper's numbers;
what it counts lives in the model (`SplatModel.statistics`), so it is saved and resumed with it."""

from sparse3d.gaussians.strategies.default import DefaultStrategy as DefaultStrategy
from sparse3d.gaussians.strategies.mcmc import MCMCStrategy as MCMCStrategy
from sparse3d.gaussians.strategies.protocol import Changes as Changes
from sparse3d.gaussians.strategies.protocol import Statistics as Statistics
from sparse3d.gaussians.strategies.protocol import Strategy as Strategy
from sparse3d.gaussians.strategies.voxel_anchors import VoxelAnchorStrategy as VoxelAnchorStrategy

StrategyConfig = DefaultStrategy | MCMCStrategy | VoxelAnchorStrategy
