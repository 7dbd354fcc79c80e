"""Python's collector of cyclic garbage, set for processes that live long and make many short-lived objects.

By default it walks every object of the process now and then: with some hundred thousand of them, from the libraries
alone, each such walk stops the loop for a tenth of a second.
"""

import gc

YOUNG = 20_000  # objects that are made before the young ones are looked at; 700 by default


def settle() -> None:
    """Put what is there now beyond the collector's reach, and have it look more seldom; call it once, when loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)
