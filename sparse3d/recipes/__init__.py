"""Tasks put together: the only place where models, data, engine and evaluation meet."""
