"""What a setting can be: types with their limits, which are also the words by which a wrong value is refused."""

from typing import Annotated, Any, Literal, get_args

from msgspec import Meta


class Secret:
    """A text that shows itself only when asked by name."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "***" if self._text else "(not set)"


Text = Annotated[str, Meta(description="text")]
WorkerName = Annotated[str, Meta(max_length=100, description="text, 100 characters at most")]
Port = Annotated[int, Meta(ge=1, le=65535, description="a port, 1 to 65535")]
MetricsPort = Annotated[int, Meta(ge=0, le=65535, description="a port, 1 to 65535, or 0 for none")]
Address = Annotated[str, Meta(pattern=r"^[^\s@<>,;]+@[^\s@<>,;]+$", description="one address, like mail@example.com")]
OptionalAddress = Annotated[
    str,
    Meta(pattern=r"^$|^[^\s@<>,;]+@[^\s@<>,;]+$", description="one address, like mail@example.com, or nothing"),
]
Encryption = Literal["none", "starttls", "tls"]
ProviderName = Literal["smtp", "smtp_fallback", "ses", "sendgrid"]
_ONE = f"({'|'.join(get_args(ProviderName))})"
Providers = Annotated[
    str,
    Meta(
        pattern=rf"^$|^{_ONE}(,{_ONE})*$",
        description=f"providers ({', '.join(get_args(ProviderName))}) with commas between, or nothing",
    ),
]
_RATE = r"[1-9]\d{0,6}/[smhd]( burst [1-9]\d{0,6})?"
RateText = Annotated[
    str,
    Meta(pattern=rf"^$|^{_RATE}$", description="a rate like 14/s, 500/m, 20/h or 20/h burst 5, or nothing"),
]
DomainRates = Annotated[
    str,
    Meta(
        pattern=rf"^$|^([A-Za-z0-9.-]+=)?{_RATE}(, ?[A-Za-z0-9.-]+={_RATE})*$",
        description="a rate like 20/s, exceptions like example.com=50/s, with commas between, or nothing",
    ),
]
Day = Annotated[str, Meta(pattern=r"^$|^20\d\d-[01]\d-[0-3]\d$", description="a day like 2030-12-31, or nothing")]
KafkaName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9._-]{1,249}$", description="letters, digits, dot, _ and -, 249 at most")
]
Patterns = Annotated[
    str,
    Meta(
        pattern=r"^$|^[^\s@<>,;]+@[^\s@<>,;]+(,[^\s@<>,;]+@[^\s@<>,;]+)*$",
        description="addresses, * for anything, with commas between, or nothing",
    ),
]
Partitions = Annotated[
    str,
    Meta(
        pattern=r"^$|^\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*$",
        description="partitions like 0,1,5 or 0-3, or nothing",
    ),
]


def whole(least: int, most: int) -> Any:
    """A whole number within limits."""
    return Meta(ge=least, le=most, description=f"a whole number, {least} to {most}")


def seconds(least: float, most: float) -> Any:
    """Seconds within limits."""
    return Meta(ge=least, le=most, description=f"seconds, {least:g} to {most:g}")


def share() -> Any:
    """A part of a whole, less than all of it."""
    return Meta(ge=0.0, le=0.9, description="a share, 0 to 0.9")
