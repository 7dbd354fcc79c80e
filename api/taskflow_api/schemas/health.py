"""Answers of /health."""

from typing import Literal

from pydantic import BaseModel, Field


class Liveness(BaseModel):
    """GET /health/live."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """GET /health/ready; "degraded" while Redis is away: tasks are accepted and delivered later."""

    status: Literal["ok", "degraded"]
    postgres: Literal["ok"]
    schema_: str = Field(alias="schema", description="The schema's revision.")
    redis: Literal["ok", "away"]
