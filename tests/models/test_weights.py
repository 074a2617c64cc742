"""Weights by name: released files come from a (local) server once, whole or not at all."""

import hashlib
import http.server
import threading
from pathlib import Path

import pytest
import torch

import flowsr
from flowsr.errors import DownloadError
from flowsr.models import weights

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


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
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["SR_DF2K_X4_HCFlow++.pth"]


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
