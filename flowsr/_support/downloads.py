"""Files from the network: an answer stands under its name only when it has proved to be the file, never half of it."""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowsr._support.atomic import atomic_path
from flowsr.errors import DownloadError, quoted

_SLOWEST = 1000  # bytes per second
_MOST = 2**31
_BLOCK = 2**16


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https alone: what comes over plain http anybody on the way can change."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.lower().startswith("https://"):
            raise urllib.error.URLError(f"a redirect to {quoted(newurl)}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except Exception:
            fp.close()  # the standard library leaves it open where an address is none
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def download(url: str, path: Path, *, what: str, check: Callable[[Path], object], timeout: float = 20.0) -> None:
    """Fetch a file to a place, if the answer is that file; otherwise nothing stays there.

    Redirects are followed to https only. An answer of less than 1 kB/s or more than 2 GiB is given up.

    Cost: the answer over the network, and what the check costs.

    Args:
        url: where the file is.
        path: where it shall be; its folder is made.
        what: is fetched, for messages: "the weights of sr-x4".
        check: is given the file before it stands in its place, and raises CheckpointError if it is not the one.
        timeout: seconds to wait for each part of the answer.

    Raises:
        DownloadError: if the file cannot be had, with what to do about it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        try:
            _fetch(url, temporary, timeout=timeout)
            check(temporary)
        # ValueError: CheckpointError is one, and what the standard library makes of impossible addresses and lengths.
        except (OSError, http.client.HTTPException, ValueError, OverflowError) as error:
            # Under the temporary name nobody would find it.
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it is the answer, too
            said = error.reason if type(error) is urllib.error.URLError else error
            why = quoted(str(said).replace(str(temporary), "the answer"), most=300)
            raise DownloadError(
                f"expected to fetch {what} from {url}; got: {why}. Nothing was kept: try again later, or put the file "
                f"at {path} by hand"
            ) from None


def _fetch(url: str, path: Path, *, timeout: float) -> None:
    """Write the body of an answer, all of it, to a file."""
    start, got = time.monotonic(), 0
    opener = urllib.request.build_opener(_SecureRedirects)
    with opener.open(url, timeout=timeout) as answer, path.open("wb") as file:
        if answer.status != 200:
            raise urllib.error.URLError(f"the answer {answer.status} {quoted(answer.reason)} in place of a file")
        expected = answer.length
        while block := answer.read1(_BLOCK):
            got += file.write(block)
            if time.monotonic() - start > timeout + got / _SLOWEST:
                raise TimeoutError(f"an answer of less than {_SLOWEST} bytes a second")
            if got > _MOST:
                raise urllib.error.URLError(f"an answer of more than {_MOST} bytes")
    if expected is not None and got != expected:
        raise urllib.error.URLError(f"the connection ended after {got} of {expected} bytes")
