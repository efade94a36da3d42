"""Rigid motions, boxes, cameras, rays and bounds: plain functions over arrays."""
