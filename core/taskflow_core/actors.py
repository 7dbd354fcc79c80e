"""Who acts: the user behind a request, and how far their eyes reach."""

from dataclasses import dataclass
from uuid import UUID

from taskflow_core.models.users import Role


@dataclass(frozen=True, slots=True)
class Actor:
    """The user on whose behalf a use-case runs."""

    user_id: UUID
    role: Role

    @property
    def sees_all(self) -> bool:
        """Whether tasks of every owner are within reach (OPERATOR and ADMIN)."""
        return self.role is not Role.USER
