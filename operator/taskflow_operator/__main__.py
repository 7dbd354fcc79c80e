"""Run the operator: `python -m taskflow_operator`."""

from taskflow_operator.main import main

main()
