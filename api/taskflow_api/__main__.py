"""Run the API: `python -m taskflow_api`."""

from taskflow_api.main import main

main()
