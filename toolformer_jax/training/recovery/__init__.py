"""What fine-tuning recovers of a compressed model: distillation, zeros that stay, and rounding."""
