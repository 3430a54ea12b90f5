"""Settings of a run, by gin files and bindings: the only room that knows gin."""
