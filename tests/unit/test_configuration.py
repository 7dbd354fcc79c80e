"""docs/configuration.md and the settings say the same."""

import re
from pathlib import Path

from taskflow_core.settings import PREFIX, ApiSettings, OperatorSettings, SchedulerSettings, Settings, WorkerSettings

GUIDE = Path(__file__).parents[2] / "docs" / "configuration.md"
SECTIONS = {
    "All processes": Settings,
    "API": ApiSettings,
    "Worker": WorkerSettings,
    "Scheduler": SchedulerSettings,
    "Operator": OperatorSettings,
}


def documented(section: str) -> dict[str, str]:
    """Return the variables of a section of the guide, with their defaults as written."""
    text = GUIDE.read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, flags=re.MULTILINE))


def test_every_setting_is_documented_with_its_default() -> None:
    for section, kind in SECTIONS.items():
        own = {name for name in kind.model_fields if kind is Settings or name not in Settings.model_fields}
        defaults = {}
        for name in own:
            field = kind.model_fields[name]
            shown = "required" if field.is_required() else str(field.default if field.default != "" else None)
            defaults[PREFIX + name.upper()] = shown.removesuffix(".0").replace("None", "none")
        assert documented(section) == defaults
