"""`python -m taskflow_worker`."""

from taskflow_worker.main import main

main()
