"""The subcommands of `moa-plan`, a module each; see `cli.py` for their form."""
