"""Readers and writers of file formats: arrays in memory, files on disk, nothing unpickled."""
