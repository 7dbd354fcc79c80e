"""What a scenario counted: one line each, and the table at the end of the run."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTHS = {"sent": 6, "completed": 9, "failed": 6, "canceled": 8, "lost": 4, "doubled": 7, "recovery": 8}


@dataclass(frozen=True)
class Figures:
    """What became of a scenario's tasks.

    `lost` were sent and have no end, `doubled` completed more than once; each test says what `recovery_s` measures.
    """

    scenario: str
    sent: int
    completed: int
    failed: int
    canceled: int
    lost: int
    doubled: int
    recovery_s: float | None
    note: str


def table(rows: Sequence[Figures]) -> list[str]:
    """Return the table, in the order of the scenarios' numbers."""
    width = max(len(row.scenario) for row in rows)
    header = " ".join([f"{'scenario':<{width}}", *(f"{name:>{size}}" for name, size in WIDTHS.items())])
    return [header, *(_line(row, width) for row in sorted(rows, key=_place))]


def _line(row: Figures, width: int) -> str:
    recovery = "-" if row.recovery_s is None else f"{row.recovery_s:.2f} s"
    values = [row.sent, row.completed, row.failed, row.canceled, row.lost, row.doubled, recovery]
    cells = [f"{value:>{size}}" for value, size in zip(values, WIDTHS.values(), strict=True)]
    return " ".join([f"{row.scenario:<{width}}", *cells, row.note]).rstrip()


def _place(row: Figures) -> tuple[int, str]:
    number = row.scenario.partition(" ")[0].rstrip("abcdefgh")
    return (int(number), row.scenario)
