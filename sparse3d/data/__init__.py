"""Data sets, loaders and augmentation: files and generated worlds as frames."""
