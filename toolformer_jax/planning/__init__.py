"""What a step would need on a TPU that is not there, by the TPU's own compiler."""
