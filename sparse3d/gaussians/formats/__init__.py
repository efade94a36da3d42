"""Files of Gaussians, of every program's making.

table        which formats there are: endings, axes, limits; read_splats, write_splats, open_splats
converting   from file to file, with a report
source       Gaussians block by block
frames       which way the axes of a file point
inria_ply    .ply of the papers, of 3-D Gaussians and of surfels
"""

from sparse3d.gaussians.formats.converting import convert as convert
from sparse3d.gaussians.formats.table import open_splats as open_splats
from sparse3d.gaussians.formats.table import read_splats as read_splats
from sparse3d.gaussians.formats.table import write_splats as write_splats
