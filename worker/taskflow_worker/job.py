"""The function that a delivery names, for who runs a stock `rq worker` on our queues."""


def run() -> None:
    """Refuse: claims, leases and retries belong to TaskFlow's own worker; the task stays PENDING meanwhile."""
    raise RuntimeError("tasks of TaskFlow are run by `taskflow worker`; stop this `rq worker`")
