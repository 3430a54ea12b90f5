"""Experiments: gin files of the package, read through `importlib.resources`."""
