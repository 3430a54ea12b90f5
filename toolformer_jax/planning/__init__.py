"""Plans of steps on TPUs: memory, traffic and bounds of speed, by compiling without a TPU."""
