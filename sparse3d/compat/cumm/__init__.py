"""The little of cumm, spconv's array library, that networks and data loaders meet."""
