"""One module a subcommand: read the flags, call the library, print. Nothing heavy is imported before a command runs."""
