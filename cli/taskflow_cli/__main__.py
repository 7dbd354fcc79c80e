"""`python -m taskflow_cli` is the `taskflow` command."""

from taskflow_cli.main import main

main()
