"""What the processes' metrics have in common: labels that stay bounded and the build."""

import platform
from collections.abc import Callable, Iterable
from importlib.metadata import version
from itertools import islice
from typing import TypeVar

from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics

DISTRIBUTION = "taskflow-platform"
OTHER = "other"
MAX_NAMES = 100

T = TypeVar("T")


class Known(dict[str, T]):
    """A thing for each known name, made at once, and one under OTHER for all other names together.

    Names that users make up, and known ones beyond `most`, share OTHER's: they cost neither memory nor a series.
    """

    def __init__(self, names: Iterable[str], make: Callable[[str], T], *, most: int = MAX_NAMES) -> None:
        super().__init__({name: make(name) for name in (*islice(names, most), OTHER)})

    def __missing__(self, _name: str) -> T:
        return self[OTHER]


def tell_build(component: str, registry: CollectorRegistry) -> None:
    """Make the metric that says which version of what runs here; call it before any other metric is made."""
    # A series more for each counter and histogram, which nobody reads.
    disable_created_metrics()  # type: ignore[no-untyped-call] # prometheus_client's
    Gauge(
        "taskflow_build_info",
        "Always 1; the labels say what runs here.",
        ["component", "version", "python"],
        registry=registry,
    ).labels(component, version(DISTRIBUTION), platform.python_version()).set(1)
