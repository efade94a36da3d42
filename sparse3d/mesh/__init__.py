"""Meshes (`sparse3d.geometry.mesh.Mesh`) and voxels that stand for surfaces: meshes in, meshes out; distances
from them; signed bands, dual grids and flexible cubes, both ways."""
