"""The stages that turn a corpus into C*: sample calls, execute them, filter them, merge them."""
