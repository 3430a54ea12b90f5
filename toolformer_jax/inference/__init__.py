"""The compiled engine: scoring, sampling, generation. It knows no tool and no file."""
