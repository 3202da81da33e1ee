"""Asking the Hugging Face hub, and its refusals in words.

huggingface_hub is imported when the hub is first asked: 0.2 s that a start-up need not pay. It brings the session with
its proxies and certificates, the login, and the names of the hub's refusals.
"""

import os
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from core.errors import SftuiError
from core.text import human_bytes, human_duration, safe

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

_PUBLIC = "https://huggingface.co"
_YES = {"1", "ON", "YES", "TRUE"}


def endpoint() -> str:
    """Return the hub's address: $HF_ENDPOINT, or https://huggingface.co."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or _PUBLIC


DATASETS = "datasets/"
"""What stands before the id of a dataset, where that of a model has nothing before it."""


def page_of(model_id: str) -> str:
    """Return the address of a model's page, to be shown: without a user's name and password."""
    parts = urlsplit(endpoint())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}/{model_id}"


def is_offline() -> bool:
    """Whether the user wants no connection to the hub: $HF_HUB_OFFLINE or $TRANSFORMERS_OFFLINE."""
    return (os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or "").upper() in _YES


def get_json(path: str, query: dict[str, Any], model_id: str = "") -> tuple[Any, str | None]:
    """Return the hub's answer, and the query string of its next page if there is one. Raises SftuiError."""

    def ask() -> tuple[Any, str | None]:
        with response_to(f"{endpoint()}{path}", query=query) as response:
            response.read()
            following = response.links.get("next", {}).get("url")
            return response.json(), urlsplit(following).query if following else None

    return in_words(ask, model_id)


@contextmanager
def response_to(
    url: str, *, query: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> Iterator["httpx2.Response"]:
    """Ask with the user's login, and give the response before its body is read. Raises what the libraries raise."""
    from huggingface_hub import constants, get_session, hf_raise_for_status
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # loaded on first use

    # A redirect to another host, as to the storage of large files, goes without the login: httpx sees to it.
    with get_session().stream(
        "GET",
        url,
        params=query,
        headers=build_hf_headers(library_name="sftui", headers=headers),
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
    ) as response:
        hf_raise_for_status(response)
        yield response


def in_words(work: Callable[[], T], model_id: str = "") -> T:
    """Do work with the hub; raise an SftuiError for every failure to reach it, to understand it or to keep its files.

    The words are ours alone and the libraries' exception is left behind: it holds the request, and so the token.
    """
    if is_offline():
        raise _offline()
    import httpx2
    from huggingface_hub.errors import DeviceCodeError, HfHubHTTPError, OIDCError

    try:
        return work()
    except HfHubHTTPError as error:
        problem = _refused(error.response, model_id)
    except (OIDCError, DeviceCodeError):
        problem = SftuiError("The login has run out", "It could not be renewed.", "Log in again: hf auth login")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        problem = _unreachable(error)
    except OSError as error:
        problem = _not_kept(error)
    except ValueError as error:
        problem = _not_understood(error)
    # Raised from outside of the handlers, so that the exception is not even its context.
    raise problem


def understood(take_apart: Callable[[], T]) -> T:
    """Take an answer of the hub apart; raise an SftuiError when it is not what a hub gives."""
    try:
        return take_apart()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        problem = _not_understood(error)
    raise problem


def _not_understood(error: Exception) -> SftuiError:
    return SftuiError(
        "The hub's answer cannot be understood",
        f"{_host()} gave something else than a hub gives ({type(error).__name__}).",
        "Check HF_ENDPOINT and HF_TOKEN, and whether a proxy or a login page stands between.",
    )


def _host() -> str:
    return safe(urlsplit(endpoint()).netloc.rpartition("@")[2])


def _offline() -> SftuiError:
    return SftuiError(
        "Offline",
        "HF_HUB_OFFLINE is set, so the hub is not asked.",
        "Unset HF_HUB_OFFLINE to search and to download; what is here already works without.",
    )


def _refused(response: "httpx2.Response", model_id: str) -> SftuiError:
    status = response.status_code
    code, reason = response.headers.get("X-Error-Code"), response.headers.get("X-Error-Message", "")
    name, page = safe(model_id.removeprefix(DATASETS)), safe(page_of(model_id))
    kind = "dataset" if model_id.startswith(DATASETS) else "model"
    if code == "GatedRepo":
        return _gated(status, kind, name, page)
    if status == 401 and "credentials" in reason.lower():
        return SftuiError(
            "The login is not accepted",
            f"{_host()} does not know the token that it was sent.",
            "Log in again: hf auth login. A token in HF_TOKEN is taken before that of the login.",
        )
    if status == 429:
        seconds = _wait_for(response)
        return SftuiError(
            "Too many requests",
            f"{_host()} has had enough of them from here for now.",
            f"Try again in {human_duration(seconds)}." if seconds is not None else "Try again in five minutes.",
        )
    if status >= 500:
        return SftuiError(
            "The hub has a failure", f"{_host()} answered with status {status}.", "Try again in some minutes."
        )
    if not model_id:
        return SftuiError("The hub refuses", f"{_host()} answered with status {status}.", "Log in: hf auth login")
    if code == "RevisionNotFound":
        return SftuiError("No such revision", f"“{name}” has no revision of that name.", f"See {page}/tree/main")
    if code == "EntryNotFound":
        return SftuiError("A file is gone", f"“{name}” has changed while it was looked at.", "Try again.")
    if status in (401, 404):
        return SftuiError(
            f"No such {kind}",
            f"{_host()} shows no “{name}”"
            + (" to somebody who is not logged in." if status == 401 else " to this account."),
            f"Check the name. If the {kind} is private, log in with an account that may see it: hf auth login",
        )
    return SftuiError(
        "The hub refuses",
        f"{_host()} answered with status {status} when asked for “{name}”.",
        f"Check that the token may read this {kind}: hf auth whoami",
    )


def _gated(status: int, kind: str, name: str, page: str) -> SftuiError:
    if status == 401:
        return SftuiError(
            f"The {kind} is gated",
            f"“{name}” is given to those who have accepted its terms, and nobody is logged in.",
            f"Accept the terms at {page}, then log in: hf auth login",
        )
    return SftuiError(
        f"The {kind} is gated",
        f"“{name}” is given to those who have accepted its terms, and this account has not, or was not let in yet.",
        f"Accept the terms at {page}; some owners answer by hand. A fine-grained token also needs the permission to "
        "read gated repositories.",
    )


def _wait_for(response: "httpx2.Response") -> int | None:
    after = response.headers.get("Retry-After", "")
    if after.isdigit():
        return int(after)
    # The hub's own way: RateLimit: "api";r=0;t=55
    limit = re.search(r"\bt\s*=\s*(\d+)", response.headers.get("RateLimit", ""))
    return int(limit.group(1)) if limit is not None else None


def _unreachable(error: Exception) -> SftuiError:
    import httpx2

    title, check = "The hub cannot be reached", "Check the network, and HTTPS_PROXY if there is a proxy."
    if isinstance(error, httpx2.TimeoutException):
        return SftuiError("The hub does not answer", f"{_host()} was silent for too long.", f"Try again. {check}")
    if isinstance(error, httpx2.ProxyError):
        return SftuiError(title, "The proxy refuses.", "Check HTTPS_PROXY and NO_PROXY.")
    if isinstance(error, httpx2.LocalProtocolError):
        # Its text shows the header, and so the token.
        return SftuiError(
            "The token is not one", "It holds characters that no token has.", "Check HF_TOKEN, or: hf auth login"
        )
    if isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol):
        return SftuiError(title, f"“{_host()}” is not an address.", "Check HF_ENDPOINT: https://…")
    if isinstance(error, httpx2.ConnectError):
        cause = next(_causes(error), None)
        if isinstance(cause, ssl.SSLError):
            return SftuiError(
                title,
                f"The certificate of {_host()} is not trusted.",
                "Where a proxy looks into connections, name its certificate in SSL_CERT_FILE.",
            )
        if isinstance(cause, socket.gaierror):
            return SftuiError(title, f"No address is known for {_host()}: there is no network or no DNS.", check)
        return SftuiError(title, f"{_host()} takes no connection.", check)
    return SftuiError("The connection broke", f"{_host()} was there and is gone.", "Try again: what is here is kept.")


def _causes(error: BaseException) -> Iterator[OSError]:
    """The operating system's own errors behind one of the library's."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError):
            yield at
        at = at.__cause__ or at.__context__


def _not_kept(error: OSError) -> SftuiError:
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return _offline()
    where = safe(str(error.filename)) if error.filename else "The disk"
    return SftuiError(
        "The download cannot be kept",
        f"{where}: {error.strerror or 'cannot be written'}.",
        "Make room, or let HF_HUB_CACHE name a folder elsewhere.",
    )


def too_large(name: str, size: int) -> SftuiError:
    """A file beyond what the hub gives over HTTP."""
    return SftuiError(
        "A file is too large",
        f"{safe(name)} has {human_bytes(size)}, and the hub gives such files over its own protocol only.",
        "Download it with: hf download",
    )
