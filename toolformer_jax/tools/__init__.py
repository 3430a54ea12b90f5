"""The tools that a model can call, the registry that builds them, and the executor."""
