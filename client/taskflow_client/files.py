"""Files that are stored whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple


class Part(NamedTuple):
    """A file that is being written, and where it will be."""

    sink: IO[bytes]
    target: Path


@contextmanager
def whole(folder: Path, name: str) -> Iterator[Part]:
    """Open a file beside `folder / name` that takes its place when the block ends well.

    Raises:
        ValueError: the name, which came from the API, would lead out of the folder.
    """
    if Path(name).name != name or name in {"", ".", ".."} or "\0" in name:
        raise ValueError(f"{name!r} is no plain file name")
    target = folder / name
    part = target.with_name(target.name + ".part")
    try:
        with part.open("wb") as sink:
            yield Part(sink, target)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
