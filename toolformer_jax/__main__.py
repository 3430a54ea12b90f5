"""`python -m toolformer_jax` is the command `toolformer`."""

import sys

from toolformer_jax.cli import main

sys.exit(main())
