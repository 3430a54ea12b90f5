"""Settings of a run, by gin files and bindings: the only package that uses gin."""
