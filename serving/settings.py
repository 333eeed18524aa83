"""ServerSettings: what the operator of a server chooses, and the limits for every client."""

from dataclasses import dataclass

from gptoss_onnx.errors import InputError


@dataclass(frozen=True)
class ServerSettings:
    """Settings of one server; the defaults suit one machine and clients that are trusted half-way.

    Raises InputError for a value out of its range.

    Attributes:
        model: the name that clients ask for.
        api_keys: who sends none of them is refused; empty lets everybody in who reaches the port.
        cors_origins: origins of web pages that may call, such as `https://chat.example`; `*` means
            all. Empty: pages of this server alone.
        allowed_hosts: names by which clients may call a server without keys, beside `localhost` and
            addresses in numbers. A page of a stranger can give a name of its own to 127.0.0.1, and
            then its calls carry that name.
        shares_prefixes: prompts of one key may begin with what was saved for another. Then how many
            tokens were cached, and how soon an answer begins, tell each what others have asked.
        access_log: write one JSON line for each request.
        max_body_bytes: of one request's body.
        max_bodies_bytes: of the bodies of all requests that are being read.
        max_header_bytes: of one request's line and headers.
        max_connections: open at a time. One too many takes the place of that which has waited
            longest for a request; where none waits, it gets 503.
        max_requests: that may be in work at a time, streams among them.
        max_choices: `n` times the prompts of one request.
        max_pending_bytes: of one request's answers that wait for a client that reads too slowly.
        max_answer_bytes: of one request's answers that are collected to be sent as a whole: of
            their texts, and of their log-probabilities, which make them end where they are full.
        header_seconds: in which a connection's request line and headers have to arrive.
        body_seconds: in which a request's body has to arrive.
        request_seconds: in which an answer has to be complete.
        slow_reader_seconds: for which a client may read nothing of what waits for it.
        ping_seconds: of silence in a stream, after which it gets a comment.
        drain_seconds: in which running answers may end after the order to stop.
        kept_responses: of `/v1/responses`, for `previous_response_id`; the ones used last.
        kept_responses_bytes: of their conversations together.
        kept_responses_seconds: since each was made.
    """

    model: str
    api_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    shares_prefixes: bool = False
    access_log: bool = False
    max_body_bytes: int = 8_000_000
    max_bodies_bytes: int = 128_000_000
    max_header_bytes: int = 16_384
    max_connections: int = 1_000
    max_requests: int = 512
    max_choices: int = 64
    max_pending_bytes: int = 4_000_000
    max_answer_bytes: int = 64_000_000
    header_seconds: float = 15.0
    body_seconds: float = 30.0
    request_seconds: float = 3600.0
    slow_reader_seconds: float = 30.0
    ping_seconds: float = 15.0
    drain_seconds: float = 60.0
    kept_responses: int = 1_000
    kept_responses_bytes: int = 64_000_000
    kept_responses_seconds: float = 24 * 3600.0

    def __post_init__(self) -> None:
        if not self.model or not self.model.isprintable() or len(self.model) > 200:
            raise InputError(f"model: found {self.model!r:.60}, expected 1 to 200 letters")
        for key in self.api_keys:
            if not key.isascii() or not key.isprintable() or not key or " " in key:
                # the key itself belongs in no message
                raise InputError(
                    "api_keys: found one that is empty or holds other than ASCII letters, digits "
                    "and signs; expected what fits into a header"
                )
        for name, value in vars(self).items():
            is_limit = isinstance(value, (int, float)) and not isinstance(value, bool)
            if is_limit and not value > 0:
                raise InputError(f"{name}: found {value}, expected more than 0")
