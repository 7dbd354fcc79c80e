"""Why the embedded platform does not start, in one sentence a person can act on."""


class CannotStart(Exception):
    """The platform cannot start; `status` is what the command leaves with (2: the request, 1: a part failed)."""

    def __init__(self, message: str, *, status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
