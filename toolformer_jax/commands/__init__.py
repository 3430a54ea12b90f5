"""The commands of `toolformer`, a module each: HELP, add_arguments(parser) and run(args).

A module is imported when its command is used, and what takes long to import only when it runs.
"""
