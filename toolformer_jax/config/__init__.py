"""Settings from gin files: the only room that knows gin."""
