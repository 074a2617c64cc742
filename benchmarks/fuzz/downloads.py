"""Wrong answers by the thousand, from a server on this machine: what stays in the cache is the file, or nothing does.

An answer is bytes: a status, headers, a body, and how the connection ends. Each part is right or wrong by chance: pages
and empty bodies, damaged files, lengths that are not those of the body, chunks, redirects, connections that are cut, at
any byte, reset or never answered.
"""

import contextlib
import io
import os
import random
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import flowsr
from benchmarks.fuzz import official
from benchmarks.fuzz.models import change_bytes, same
from benchmarks.fuzz.trial import Trial, attempts, outcome
from flowsr.models import ImageModel, weights

_NAME = "sr-x4"
_TIMEOUT = 0.3
_STATUS = ("200 OK", "200 OK", "200 OK", "200 OK", "204 No Content", "206 Partial Content", "301 Moved", "302 Found")
_OTHERS = (
    "307 Again",
    "308 For Good",
    "404 Not Found",
    "429 Later",
    "500 Error",
    "999 \x1b[31mred",
    "abc",
    "-1 x",
    "100 Go",
)
_PAGE = b"<!DOCTYPE html><html><body>Sign in to this network</body></html>"
_PLACES = (
    "http://127.0.0.1:{port}/good",
    "https://127.0.0.1:{port}/good",
    "/good",
    "ftp://127.0.0.1/a",
    "file:///etc/passwd",
)
_STRANGE_PLACES = ("http://[", "http://127.0.0.1:x/", "", "\x00", "//", "x" * 50_000, "https://" + "y" * 300 + "/")


@dataclass
class Answer:
    """What a server sends, and what it does then: "close", "reset" or "stall"."""

    content: bytes
    then: str = "close"


class Server(socketserver.ThreadingTCPServer):
    """Answers every request alike, with :attr:`answer`."""

    allow_reuse_address = True
    daemon_threads = True
    answer = Answer(b"")

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = self.server_address[1]

    def handle_error(self, *_: object) -> None:
        """Say nothing: the other side may leave when it likes."""


class _Handler(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        answer = self.server.answer
        while self.rfile.readline().strip():
            pass
        self.wfile.write(answer.content)
        if answer.then == "stall":
            threading.Event().wait(3 * _TIMEOUT)
        if answer.then == "reset":
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.request.close()


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Within this context the authors' files are on a server of this machine."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        with mock.patch.object(weights, "RELEASE_URL", f"http://127.0.0.1:{server.port}/"):
            yield server
        server.shutdown()


def whole(body: bytes) -> Answer:
    """The right answer."""
    return Answer(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def wrong(body: bytes, rng: random.Random, port: int) -> Answer:
    """An answer with something wrong in it, by chance nothing."""
    status = rng.choice(_STATUS if rng.random() < 0.8 else _OTHERS)
    sent = _body(body, rng)
    headers, sent = _lengths(sent, rng)
    if status[0] == "3" or rng.random() < 0.05:
        place = rng.choice(_PLACES if rng.random() < 0.7 else _STRANGE_PLACES)
        headers.append("Location: " + place.format(port=port))
    headers += rng.choice(
        ([], [], [], ["Content-Type: text/html"], ["Content-Encoding: gzip"], ["x" * 70_000], ["a: b"] * 200)
    )
    head = f"HTTP/1.1 {status}\r\n" + "".join(f"{header}\r\n" for header in headers) + "\r\n"
    content = head.encode("latin-1", "replace") + sent
    if rng.random() < 0.2:
        content = content[: rng.randrange(len(content) + 1)]
    return Answer(content, rng.choice(("close",) * 8 + ("reset",) + ("stall",) * (rng.random() < 0.1)))


def _body(body: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.4:
        return body
    hostile = official.hostile_pickle(Path("canary"))
    return rng.choice(
        (b"", _PAGE, b"\n " + _PAGE, body[: len(body) // 2], body + _PAGE, change_bytes(body, rng), hostile)
    )


def _lengths(body: bytes, rng: random.Random) -> tuple[list[str], bytes]:
    """Headers that say how long a body is, and the body, in chunks where they say so."""
    if rng.random() < 0.2:
        sizes = (f"{len(body):x}", f"{len(body) + 5:x}", "-1", "zz", "f" * 30)
        size = rng.choice(sizes[:1] * 4 + sizes)
        return ["Transfer-Encoding: chunked"], size.encode() + b"\r\n" + body + b"\r\n0\r\n\r\n"
    number = len(body)
    lengths = (
        [number],
        [number],
        [number],
        [],
        [number + 9],
        [max(0, number - 9)],
        ["abc"],
        [-3],
        [2**70],
        [number, 7],
    )
    return [f"Content-Length: {length}" for length in rng.choice(lengths)], body


# ------------------------------------------------------------------------------------------------------- the trial


def try_answer(trial: Trial, folder: Path, server: Server, answer: Answer, flow: ImageModel) -> None:
    """Fetch a file into a cache of its own; note what came of it and what stayed."""
    server.answer = answer
    with mock.patch.dict(os.environ, FLOWSR_CACHE=str(folder)), contextlib.redirect_stderr(io.StringIO()):
        end = outcome(lambda: _fetched(flow, timeout=_TIMEOUT))
        kept = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        if end == "refused" and kept:
            end = "kept what was refused"
        if end == "same":
            # Nobody answers now: what was kept is taken for the file.
            server.answer = Answer(b"")
            end = outcome(lambda: _fetched(flow, timeout=_TIMEOUT))
    for name in kept:
        (folder / name).unlink()
    trial.note(end, "answer", answer.content, fine=end in ("refused", "same"))


def _fetched(flow: ImageModel, *, timeout: float) -> str:
    weights.fetch_release(_NAME, timeout=timeout)
    return "same" if same(flowsr.load(_NAME), flow) else "different"


def run(*, seconds: float, seed: int) -> Trial:
    """Give wrong answers for a time."""
    body, flow = official.originals()["sr-x4-small-v1"]
    with serving() as server:

        def attempt(trial: Trial, rng: random.Random, folder: Path) -> None:
            try_answer(trial, folder / "cache", server, wrong(body, rng, server.port), flow)

        return attempts(attempt, seconds=seconds, seed=seed)
