"""Where the platform's API is: an option, the environment, the platform of this folder, or the default."""

import json
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from taskflow_cli.failures import BadInput
from taskflow_cli.profiles import PROFILE_VARIABLE, Profiles

DEFAULT_URL = "http://127.0.0.1:8000"
VARIABLE = "TASKFLOW_API_URL"
PLATFORM_FILE = Path(".taskflow/platform.json")


class Location(NamedTuple):
    """The API's address without a path, who said so, and the profile that named it, if one did."""

    url: str
    source: str
    profile: str = ""

    @property
    def login_key(self) -> str:
        """Under which name the login is kept: a profile has its own, and takes it to no other address."""
        return f"{self.profile} {self.url}" if self.profile else self.url

    @property
    def is_loopback(self) -> bool:
        """Whether the address is this machine."""
        return _is_loopback(self.url)


def locate(option: str | None, *, environ: Mapping[str, str], folder: Path) -> Location:
    """Return where the API is: the first of those that docs/cli.md lists.

    Raises:
        BadInput: the address is no http(s) URL, there is no such profile, or a file cannot be used.
    """
    if option:
        return Location(_clean(option, "--api"), "--api")
    profiles = Profiles.of_user(environ)
    if name := environ.get(PROFILE_VARIABLE):
        return _of_profile(profiles, name)
    if environ.get(VARIABLE):
        return Location(_clean(environ[VARIABLE], VARIABLE), VARIABLE)
    if name := profiles.current:
        return _of_profile(profiles, name)
    platform = read_platform(folder / PLATFORM_FILE)
    if platform is None:
        return Location(DEFAULT_URL, "the default")
    url = _clean(str(platform.get("api_url", "")), str(PLATFORM_FILE))
    if not _is_loopback(url):
        # A folder can come from anyone; TASKFLOW_TOKEN must not follow it to another machine.
        raise BadInput(f"{PLATFORM_FILE}: api_url {url} is not on this machine", hint=f"name it with --api {url}")
    return Location(url, str(PLATFORM_FILE))


def _of_profile(profiles: Profiles, name: str) -> Location:
    return Location(_clean(profiles.address(name), f"profile {name}"), f"profile {name}", name)


def platform_environment(folder: Path) -> dict[str, str]:
    """Return the variables that name the servers of the platform in `folder`; none when it has no platform.

    Raises:
        BadInput: platform.json cannot be used, or names another machine.
    """
    platform = read_platform(folder / PLATFORM_FILE) or {}
    urls = {name: str(platform[name]) for name in ("database_url", "redis_url") if name in platform}
    for name, url in urls.items():
        if not _is_loopback(url):
            raise BadInput(f"{PLATFORM_FILE}: {name} is not on this machine", hint="set TASKFLOW_DATABASE_URL")
    return {f"TASKFLOW_{name.upper()}": url for name, url in urls.items()}


def read_platform(path: Path) -> dict[str, Any] | None:
    """Return what `taskflow up` wrote about its platform, or None when there is no such file.

    Raises:
        BadInput: the file is not a JSON object.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {error}", hint="remove it, or start the platform: taskflow up") from None
    if not isinstance(document, dict):
        raise BadInput(f"{path} does not hold a JSON object", hint="remove it, or start the platform: taskflow up")
    return document


def _clean(url: str, source: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or parts.username or parts.path.strip("/") not in {"", "api/v1"}:
        raise BadInput(f"{source}: {url!r} is not the address of an API", hint=f"it looks like {DEFAULT_URL}")
    return f"{parts.scheme}://{parts.netloc}"


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
