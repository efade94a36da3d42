"""The device ops of sparse3d: tensors in, tensors out; one schema, one body a device, one oracle each."""
