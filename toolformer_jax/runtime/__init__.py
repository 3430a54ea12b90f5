"""Support for long runs: run directories, progress, memory errors, compile counts, clusters."""
