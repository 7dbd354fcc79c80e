"""The table of values in the chart's README, made of values.yaml and its schema: `make chart-table` writes it."""

import json
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "charts" / "taskflow"
HEAD = "| value | default | meaning |\n|---|---|---|\n"


def schema() -> dict[str, Any]:
    """Return the schema of the values."""
    found: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return found


def defaults() -> dict[str, Any]:
    """Return the values as they are when nobody sets any."""
    found: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return found


def rows(node: dict[str, Any], values: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield path, default and meaning of every value; what has fields of its own is not a row.

    Raises:
        KeyError: a default is in one of the two files alone.
    """
    known = node.get("properties")
    if known is None:
        yield path, json.dumps(values), node["description"]
        return
    unknown = set(values) - set(known)
    if unknown:
        raise KeyError(f"{path}: values.schema.json does not know {sorted(unknown)}")
    for name, child in known.items():
        if name != "global":
            yield from rows(child, values[name], f"{path}.{name}".strip("."))


def table() -> str:
    """Return the table as Markdown."""
    return HEAD + "".join(f"| `{path}` | `{value}` | {text} |\n" for path, value, text in rows(schema(), defaults()))


def readme(text: str) -> str:
    """Return the README with the table as it should be."""
    before, _, rest = text.partition(HEAD)
    after = dropwhile(lambda line: line.startswith("|"), rest.splitlines(keepends=True))
    return before + table() + "".join(after)


if __name__ == "__main__":
    (CHART / "README.md").write_text(readme((CHART / "README.md").read_text()))
