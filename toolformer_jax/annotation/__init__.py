"""The arrows from a corpus to C*: sample calls, execute them, filter them, merge them."""
