"""FastAPI as its tutorial has it: a synchronous endpoint, one SQLModel session a request, one commit, one LPUSH."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from redis import Redis
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, Session, SQLModel, create_engine

app = FastAPI()
engine = create_engine(os.environ["BENCH_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"), pool_size=40)
redis = Redis.from_url(os.environ["BENCH_REDIS_URL"])
secret = os.environ["ORIGIN_SECRET"]


class SyncTask(SQLModel, table=True):
    """A task."""

    __tablename__ = "sync_tasks"
    id: UUID = Field(default_factory=uuid4, primary_key=True)
    owner_id: UUID = Field(index=True)
    type: str
    title: str = ""
    status: str = Field(default="PENDING", index=True)
    payload: dict[str, Any] = Field(sa_type=JSONB)
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))


class NewTask(BaseModel):
    """A request for a task."""

    type: str
    title: str = ""
    payload: dict[str, Any]


SQLModel.metadata.create_all(engine)


def get_session() -> Iterator[Session]:
    """Open a session for one request."""
    with Session(engine) as session:
        yield session


def get_owner(bearer: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> UUID:
    """Return who is asking."""
    try:
        return UUID(jwt.decode(bearer.credentials, secret, algorithms=["HS256"])["sub"])
    except jwt.PyJWTError:
        raise HTTPException(401) from None


@app.get("/health")
def health() -> dict[str, str]:
    """Say that it runs."""
    return {"status": "ok"}


@app.post("/tasks", status_code=201)
def create(
    body: NewTask, owner_id: Annotated[UUID, Depends(get_owner)], session: Annotated[Session, Depends(get_session)]
) -> SyncTask:
    """Create a task."""
    task = SyncTask(owner_id=owner_id, **body.model_dump())
    session.add(task)
    session.commit()
    session.refresh(task)
    redis.lpush("sync_tasks", str(task.id))
    return task
