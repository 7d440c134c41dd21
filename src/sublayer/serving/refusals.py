"""Why a request is not answered, as a status of HTTP and words. Each API writes them in its own form."""

from __future__ import annotations

from sublayer.errors import SublayerError


class Refusal(SublayerError):
    """
    status: of HTTP. field: the field of the request that is at fault, if one is. code: a word for programs.
    retry_after: seconds after which to come again.
    """

    status = 400
    code: str | None = None

    def __init__(
        self,
        what: str,
        remedy: str = "",
        *,
        field: str | None = None,
        status: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(what, remedy)
        self.field = field
        self.status = self.status if status is None else status
        self.code = self.code if code is None else code
        self.retry_after: int | None = None


class Busy(Refusal):
    """Too many texts wait."""

    status, code = 429, "rate_limit_exceeded"

    def __init__(self, waiting: int, seconds: float) -> None:
        super().__init__(f"{waiting} texts wait for this model already", "Come again in a moment.")
        self.retry_after = max(1, min(60, round(seconds)))


class Stopping(Refusal):
    """The server finishes what runs and takes nothing new."""

    status, code = 503, "stopping"

    def __init__(self) -> None:
        super().__init__("the server is stopping", "Come again in a moment.")
        self.retry_after = 5


class Loading(Refusal):
    """The models are not there yet."""

    status, code = 503, "loading"

    def __init__(self) -> None:
        super().__init__("the models are being loaded", "Come again in a moment; /ready tells when they are there.")
        self.retry_after = 5


class Late(Refusal):
    """The answer took too long."""

    status, code = 504, "timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the answer would take more than {seconds:g} s", "Ask for less at a time.")


class Failed(Refusal):
    """A fault of ours."""

    status, code = 500, "server_error"

    def __init__(self) -> None:
        super().__init__("sublayer has met an error of its own", "Its log shows it.")


class Gone(Refusal):
    """Nobody waits for the answer any more."""

    status, code = 499, "client_closed_request"

    def __init__(self) -> None:
        super().__init__("nobody waits any more")
