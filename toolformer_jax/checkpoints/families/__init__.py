"""The model families: how their checkpoints are read and written. `registry.py` lists them."""
