"""The gin files of the package, read through `importlib.resources`."""
