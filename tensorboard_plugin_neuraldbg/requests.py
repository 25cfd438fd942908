"""Requests: who may ask, and what was asked. Whatever is wrong becomes a `RequestError` with one sentence."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from werkzeug.wrappers import Request

BAD_PARAMETER, FORBIDDEN, NOT_FOUND, WRONG_METHOD = 400, 403, 404, 405

# What to write for each parameter that must be there, for the sentence that says that it is not.
PLACEHOLDERS = {
    "run": "NAME",
    "kind": "KIND",
    "kinds": "KIND,KIND",
    "statistic": "NAME",
    "statistics": "NAME,NAME",
    "row": "NUMBER",
    "scalar": "NAME",
    "width": "COLUMNS",
}


class RequestError(Exception):
    """A request that cannot be answered: an HTTP status and one sentence for whoever asked."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Guard:
    """Who may ask: pages of this TensorBoard, opened under a name that is its own, and with GET.

    `hosts` are the names besides those of the loopback interface; None lets every name in. Without that list, a page
    of any site could point its own name at this machine (DNS rebinding) and read the sessions.
    """

    hosts: frozenset[str] | None

    @classmethod
    def from_flags(cls, flags: argparse.Namespace) -> Guard:
        """Return the guard for what `--host` and `--bind_all` say."""
        host = (getattr(flags, "host", None) or "").strip("[]").lower()
        everywhere = getattr(flags, "bind_all", False) or host in {"0.0.0.0", "::"}  # noqa: S104  it is compared with
        return cls(None if everywhere else frozenset({host} if host else ()))

    def check(self, request: Request) -> None:
        """Let `request` pass.

        Raises:
            RequestError: 403 for a name or a site that is not ours, 405 for another method than GET.
        """
        host = _host_name(request.environ.get("HTTP_HOST", ""))
        if self.hosts is not None and host not in self.hosts and not _is_loopback(host):
            raise RequestError(
                FORBIDDEN,
                f"This TensorBoard does not answer to the host name {host!r}: open it as localhost, or start it with "
                "--host or --bind_all.",
            )
        site = request.headers.get("Sec-Fetch-Site", "none")
        if site not in {"same-origin", "none"}:
            raise RequestError(
                FORBIDDEN, f"This request came from another page (Sec-Fetch-Site: {site}); open TensorBoard itself."
            )
        if request.method != "GET":
            raise RequestError(WRONG_METHOD, f"{request.method} is not allowed here; write GET.")


def _host_name(header: str) -> str:
    """Return the name or address in a Host header, without port, brackets, or a final dot."""
    name = header.strip().lower()
    name = name[1 : name.index("]")] if name.startswith("[") and "]" in name else name.partition(":")[0]
    return name.removesuffix(".")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Parameters:
    """The parameters of a request, of which each may stand once.

    Raises:
        RequestError: there is a parameter that is not in `allowed`, or one that is given twice.
    """

    def __init__(self, request: Request, allowed: Sequence[str]) -> None:
        for name, values in request.args.lists():
            if name not in allowed:
                wanted = f"write {', '.join(allowed)}" if allowed else "there are none"
                raise RequestError(BAD_PARAMETER, f"There is no parameter {name!r} here; {wanted}.")
            if len(values) > 1:
                raise RequestError(
                    BAD_PARAMETER, f"The parameter {name!r} was given {len(values)} times; write it once."
                )
        self._given = request.args

    def optional(self, name: str) -> str | None:
        """Return the text of a parameter; None where it was not given."""
        return self._given.get(name)

    def text(self, name: str) -> str:
        """Return the text of a parameter that must be there."""
        given = self._given.get(name)
        if given is None:
            raise RequestError(BAD_PARAMETER, f"The parameter {name!r} is missing; write {name}={PLACEHOLDERS[name]}.")
        return given

    def choice(self, name: str, allowed: Sequence[str]) -> str:
        """Return one of `allowed`."""
        return _chosen(name, self.text(name), allowed)

    def choices(self, name: str, allowed: Sequence[str]) -> tuple[str, ...]:
        """Return some of `allowed`, given with commas between them."""
        return tuple(_chosen(name, given, allowed) for given in self.text(name).split(","))

    def number(self, name: str, least: int, greatest: int) -> int:
        """Return a whole number from `least` to `greatest`."""
        return _whole(name, self.text(name), least, greatest)

    def optional_number(self, name: str, least: int, greatest: int) -> int | None:
        """Return a whole number from `least` to `greatest`; None where it was not given."""
        given = self._given.get(name)
        return None if given is None else _whole(name, given, least, greatest)


def _chosen(name: str, given: str, allowed: Sequence[str]) -> str:
    if given not in allowed:
        wanted = allowed[0] if len(allowed) == 1 else f"one of {', '.join(allowed)}"
        raise RequestError(BAD_PARAMETER, f"{name} was given as {given!r}; write {wanted}.")
    return given


def _whole(name: str, given: str, least: int, greatest: int) -> int:
    digits = given.removeprefix("-")
    # Longer than any allowed number: not worth the time that int() takes for it.
    is_whole = digits.isascii() and digits.isdigit() and len(digits) <= len(str(greatest)) + 1
    if not is_whole or not least <= int(given) <= greatest:
        raise RequestError(
            BAD_PARAMETER, f"{name} was given as {given!r}; write a whole number from {least} to {greatest}."
        )
    return int(given)
