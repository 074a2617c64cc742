"""Weights by name: released files come from a (local) server once, whole or not at all."""

import hashlib
import http.server
import itertools
import pickle
import re
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import flowsr
from flowsr.errors import CheckpointError, DownloadError
from flowsr.models import weights

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/flowsr-was-here-too"),))


class Server(http.server.BaseHTTPRequestHandler):
    truncate = False
    requests: list[str]

    def do_GET(self):
        type(self).requests.append(self.path)
        if "SR_DF2K_X4_HCFlow%2B%2B.pth" not in self.path:
            self.send_error(404)
            return
        content = (GOLDEN / "sr_x4_official_state_dict.pth").read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:1000] if self.truncate else content)

    def log_message(self, *_args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    handler = type("Handler", (Server,), {"requests": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as instance:
        threading.Thread(target=instance.serve_forever, daemon=True).start()
        monkeypatch.setattr(weights, "RELEASE_URL", f"http://127.0.0.1:{instance.server_port}/")
        monkeypatch.setenv("FLOWSR_CACHE", str(tmp_path / "cache"))
        yield handler
        instance.shutdown()


def test_fetched_once_and_loaded(server, capsys, tmp_path):
    flow = flowsr.load("sr-x4")
    told = capsys.readouterr().err
    assert "released by its authors under Apache-2.0" in told
    digest = hashlib.sha256((GOLDEN / "sr_x4_official_state_dict.pth").read_bytes()).hexdigest()
    assert f"SR_DF2K_X4_HCFlow++.pth, SHA-256 {digest}" in told
    reference = flowsr.load(GOLDEN / "sr_x4_official_state_dict.pth")
    assert all(torch.equal(a, b) for a, b in zip(flow.parameters(), reference.parameters(), strict=True))
    flowsr.load("sr-x4")
    assert len(server.requests) == 1
    assert "SHA-256" not in capsys.readouterr().err
    names = ["SR_DF2K_X4_HCFlow++.pth", "SR_DF2K_X4_HCFlow++.pth.sha256"]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == names
    checked = subprocess.run(["sha256sum", "-c", names[1]], cwd=tmp_path / "cache", capture_output=True)
    assert checked.returncode == 0


def _answer(monkeypatch, server, content, *, status=200, **headers):
    """From now on the server answers this."""

    def do_GET(self):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    monkeypatch.setattr(server, "do_GET", do_GET)


GOOD = (GOLDEN / "sr_x4_official_state_dict.pth").read_bytes()
FLIPPED = GOOD[:300_000] + bytes([GOOD[300_000] ^ 1]) + GOOD[300_001:]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", {"Content_Type": "text/html"}, r"the answer is a page \(HTML"),
        (b"", {"Content_Length": "0"}, "the answer is empty"),
        (GOOD[:-5000], {}, "the answer is damaged or cut off"),
        (FLIPPED, {"Content_Length": str(len(GOOD))}, "the answer is damaged"),
        (pickle.dumps(Malicious()), {}, "such objects can run code"),
        (GOOD, {"status": 206}, "the answer 206"),
        (GOOD[:9], {"Transfer_Encoding": "chunked"}, "got: "),
        (b"", {"status": 302, "Location": "http://127.0.0.1:1/SR_DF2K_X4_HCFlow++.pth"}, "which is not https"),
        (b"", {"status": 302, "Location": "file:///etc/passwd"}, "is not allowed"),
        (b"", {"status": 302, "Location": "http://["}, "got: "),
        (GOOD, {"Content_Length": str(2**70)}, "got: "),
    ],
)
def test_what_is_not_the_file_never_stays_in_the_cache(server, monkeypatch, tmp_path, content, options, message):
    _answer(monkeypatch, server, content, **options)
    with pytest.raises(DownloadError, match=message) as refusal:
        flowsr.load("sr-x4")
    assert f"Nothing was kept: try again later, or put the file at {tmp_path}" in str(refusal.value)
    assert list((tmp_path / "cache").iterdir()) == []
    assert not Path("/tmp/flowsr-was-here-too").exists()


def test_answers_without_end_or_haste_are_given_up(server, monkeypatch, tmp_path):
    monkeypatch.setattr("flowsr._support.downloads._MOST", 10_000)
    _answer(monkeypatch, server, GOOD)
    with pytest.raises(DownloadError, match="an answer of more than 10000 bytes"):
        flowsr.load("sr-x4")
    monkeypatch.setattr("flowsr._support.downloads._SLOWEST", 1e12)
    clock = itertools.count()
    monkeypatch.setattr("flowsr._support.downloads.time", SimpleNamespace(monotonic=clock.__next__))
    with pytest.raises(DownloadError, match="an answer of less than"):
        weights.fetch_release("sr-x4", timeout=0.5)
    assert list((tmp_path / "cache").iterdir()) == []


def test_redirects_to_https_are_followed():
    from email.message import Message
    from urllib.request import Request

    from flowsr._support.downloads import _SecureRedirects

    for url in ("https://example.org/b", "HTTPS://example.org/b"):
        again = _SecureRedirects().redirect_request(Request("https://example.org/a"), None, 302, "", Message(), url)
        assert again.full_url == url


def test_the_file_met_first_is_the_one_that_is_trusted(server, monkeypatch, capsys, tmp_path):
    (cache := tmp_path / "cache").mkdir()
    path, record = cache / "SR_DF2K_X4_HCFlow++.pth", cache / "SR_DF2K_X4_HCFlow++.pth.sha256"
    path.write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match=rf"is a page .*; delete {re.escape(str(path))} to have it fetched again"):
        flowsr.load("sr-x4")
    assert not record.exists()
    path.write_bytes(GOOD)  # by hand
    flowsr.load("sr-x4")
    assert record.read_text() == f"{hashlib.sha256(GOOD).hexdigest()}  {path.name}\n"
    other = _resaved(tmp_path)
    path.write_bytes(other)
    with pytest.raises(CheckpointError, match=r"met first \(its digest is in .*delete .* to have it fetched again"):
        flowsr.load("sr-x4")
    path.unlink()
    _answer(monkeypatch, server, other)
    with pytest.raises(DownloadError, match=r"met first \(its digest is in .*damaged or another one"):
        flowsr.load("sr-x4")
    assert list(cache.iterdir()) == [record]
    _answer(monkeypatch, server, GOOD)
    flowsr.load("sr-x4")
    assert len(server.requests) == 0
    assert sorted(cache.iterdir()) == [path, record]


def test_a_published_digest_goes_before(server, monkeypatch, tmp_path):
    release = weights.RELEASES["sr-x4"]
    monkeypatch.setitem(weights.RELEASES, "sr-x4", replace(release, sha256=hashlib.sha256(GOOD).hexdigest()))
    flowsr.load("sr-x4")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [release.file]
    monkeypatch.setitem(weights.RELEASES, "sr-x4", replace(release, sha256="0" * 64))
    with pytest.raises(CheckpointError, match="expected the file that was published, of SHA-256 0000000000000000…"):
        flowsr.load("sr-x4")


def _resaved(tmp_path):
    """The same weights in another file."""
    state = torch.load(GOLDEN / "sr_x4_official_state_dict.pth", weights_only=True)
    torch.save(dict(reversed(state.items())), tmp_path / "other.pth")
    return (tmp_path / "other.pth").read_bytes()


def test_truncated_download_leaves_nothing(server, tmp_path):
    server.truncate = True
    with pytest.raises(DownloadError, match=r"the connection ended after 1000 of \d+ bytes"):
        flowsr.load("sr-x4")
    assert list((tmp_path / "cache").iterdir()) == []


def test_missing_file_and_no_server(server, monkeypatch):
    with pytest.raises(DownloadError, match=r"Rescaling_DF2K_X4_HCFlow.pth; got: .*404.*put the file at"):
        flowsr.load("rescaling-x4")
    monkeypatch.setattr(weights, "RELEASE_URL", "http://127.0.0.1:9/")
    with pytest.raises(DownloadError, match="expected to fetch the weights of sr-x8"):
        flowsr.load("sr-x8")


def test_unknown_name():
    with pytest.raises(FileNotFoundError, match=r"a name among sr-x4, .*there is no file sr-x5"):
        flowsr.load("sr-x5")
    with pytest.raises(ValueError, match="expected a released model among sr-x4"):
        weights.fetch_release("sr-x4-small")
