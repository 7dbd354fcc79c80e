"""Prints the OpenAPI document, without a database or a setting: `python -m taskflow_api.document`."""

import json
import sys

from pydantic import SecretStr

from taskflow_api.app import create_app
from taskflow_core.handlers import Registry
from taskflow_core.settings import ApiSettings


def render() -> str:
    """Return the document as the repository keeps it: indented, in the order of the routes, with a final newline."""
    settings = ApiSettings(  # of nothing that exists: an app opens nothing before its lifespan starts
        database_url=SecretStr("postgresql://nobody:nothing@127.0.0.1:1/none"),
        redis_url=SecretStr("redis://127.0.0.1:1/0"),
        jwt_secret=SecretStr("0" * 32),
    )
    return json.dumps(create_app(settings, registry=Registry({})).openapi(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
