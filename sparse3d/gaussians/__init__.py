"""Clouds of 3-D Gaussians and 2-D surfels: what they are, how they are drawn, trained, read and written."""

from sparse3d.gaussians.cloud import GaussianCloud as GaussianCloud
