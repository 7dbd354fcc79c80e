"""Which revisions of the schema this version of the code knows, without loading what brings a database there."""

from pathlib import Path


def scripts() -> Path:
    """Return the folder of the migrations: inside the installed package, or at the root of a checkout."""
    here = Path(__file__).parent
    packaged = here / "migrations"
    return packaged if packaged.is_dir() else here.parents[1] / "migrations"


def known() -> list[str]:
    """Return the revisions that this version of the code knows, newest first; a script's name begins with its own."""
    return sorted((script.name.partition("_")[0] for script in (scripts() / "versions").glob("*.py")), reverse=True)


def serves(revision: str | None, known: list[str]) -> bool:
    """Whether code that knows these revisions (newest first) works on a database at `revision`.

    A revision only adds, so a database that a newer version has brought further serves this one during its rollout.
    """
    return revision is not None and revision not in known[1:]
