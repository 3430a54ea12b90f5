"""The gin files: `importlib.resources.files('toolformer_jax.configs')` wherever it is installed."""
