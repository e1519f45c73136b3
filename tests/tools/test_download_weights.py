"""Downloading the weights: asked for first, checked afterwards. The hub is a stand-in on loopback.

It answers as the hub does as far as its client asks: sizes and checksums of a revision, and each
file, the big ones by way of a redirect to another address that can send a part of a file.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each test starts the program, some of them five times
PROGRAM = Path(__file__).parents[2] / "tools" / "download_weights.py"
REPO = "CompVis/stable-diffusion-v1-4"
REVISION = "133a221b8aa7292a167afc5127cb63fb5005638b"
UNET = "unet/diffusion_pytorch_model.safetensors"
SMALL = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "text_encoder/config.json",
    "unet/config.json",
    "vae/config.json",
]
BIG = ["text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors", UNET]
YES = ("true", "True")  # as clients of different versions write it
HALF = [name.replace(".safetensors", ".fp16.safetensors") for name in BIG]
OTHERS = ["README.md", "safety_checker/model.safetensors", "unet/diffusion_pytorch_model.bin"]


class Hub(ThreadingHTTPServer):
    """The stand-in: `gets` lists the files that were asked for, `ranges` the parts of files."""

    daemon_threads = True

    def __init__(self, log: Path):
        super().__init__(("127.0.0.1", 0), Answer)
        self.address = f"http://127.0.0.1:{self.server_port}"
        # The client follows redirects to the same host by itself, and the hub's go elsewhere.
        self.store = f"http://localhost:{self.server_port}/store/"
        self.files = {name: f"the bytes of {name}".encode() * 40 for name in SMALL + BIG + OTHERS}
        self.sizes: dict[str, int] = {}  # of files it lies about
        self.corrupt = self.drop = self.hang = None  # a file to get wrong, to cut off, to sit on
        self.status = 200
        self.gets: list[str] = []
        self.ranges: list[str] = []
        self.log, self.said = log, None  # what the tool had said when the first file was asked for

    def handle_error(self, *_):
        pass  # the tool may hang up

    def describe(self) -> dict:
        siblings = [self.describe_file(name) for name in self.files]
        return {"id": REPO, "sha": REVISION, "siblings": siblings}

    def describe_file(self, name: str) -> dict:
        size = self.sizes.get(name, len(self.files[name]))
        body = self.files[name]
        sha1 = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
        entry = {"rfilename": name, "size": size, "blobId": sha1}
        if not name.endswith((".json", ".txt")):
            entry["lfs"] = {"sha256": self.sha256(name), "size": size, "pointerSize": 134}
        return entry

    def sha256(self, name: str) -> str:
        return hashlib.sha256(self.files[name]).hexdigest()


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub, path = self.server, self.path
        resolve, store = f"/{REPO}/resolve/{REVISION}/", "/store/"
        if hub.status != 200:
            self.reply(hub.status)
        elif path in [f"/api/models/{REPO}/revision/{REVISION}?blobs={yes}" for yes in YES]:
            self.reply(200, json.dumps(hub.describe()).encode())
        elif path.startswith(store):
            self.send(path.removeprefix(store))
        elif path.removeprefix(resolve) not in hub.files:
            self.reply(404)
        elif (name := path.removeprefix(resolve)).endswith((".json", ".txt")):
            self.send(name, **{"X-Repo-Commit": REVISION})
        else:
            size = hub.describe_file(name)["size"]
            linked = {"X-Linked-Etag": f'"{hub.sha256(name)}"', "X-Linked-Size": str(size)}
            self.reply(302, Location=hub.store + name, **{"X-Repo-Commit": REVISION}, **linked)

    def send(self, name: str, **headers: str):
        hub, body = self.server, self.server.files[name]
        etag = hashlib.sha1(body).hexdigest()
        if self.command == "GET":
            if hub.said is None:
                hub.said = hub.log.read_text()
            hub.gets.append(name)
            if name == hub.hang:
                time.sleep(30)
        if name == hub.corrupt:
            body = body[:-1] + b"!"
        length, status = len(body), 200
        if wanted := self.headers.get("Range"):
            hub.ranges.append(name)
            body, status = body[int(wanted.removeprefix("bytes=").rstrip("-")) :], 206
            length = len(body)
        elif name == hub.drop:
            hub.drop, body = None, body[:-9]
        self.reply(status, body, length, ETag=f'"{etag}"', **headers)

    def reply(self, status: int, body: bytes = b"", length: int | None = None, **headers: str):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path):
    with Hub(tmp_path / "stdout") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _start(hub: Hub, tmp_path: Path, *options: str, stdin=subprocess.DEVNULL, endpoint=None):
    proxies = ("http_proxy", "https_proxy", "all_proxy")
    env = {k: v for k, v in os.environ.items() if k.lower() not in proxies and "HF_" not in k}
    env |= {
        "HF_ENDPOINT": endpoint or hub.address,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "no_proxy": "127.0.0.1,localhost",
    }
    command = [sys.executable, str(PROGRAM), str(tmp_path / "sd"), *options]
    with hub.log.open("w") as out, (tmp_path / "stderr").open("w") as err:
        return subprocess.Popen(
            command,
            env=env,
            stdin=stdin,
            stdout=out,
            stderr=err,
            # a shell that starts the tests in the background has them ignore Ctrl-C
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def _run(hub: Hub, tmp_path: Path, *options: str, **how) -> tuple[int, str, str]:
    process = _start(hub, tmp_path, *options, **how)
    try:
        code = process.wait(60)
    finally:
        process.kill()
    return code, hub.log.read_text(), (tmp_path / "stderr").read_text()


def _downloaded(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: body for name, body in found.items() if not name.startswith(".cache/")}


def _refused(result: tuple[int, str, str], *words: str):
    code, _, err = result
    last = err.strip().splitlines()[-1]
    assert code == 2
    assert last.startswith("download_weights.py: ")
    assert all(word in last for word in words), last
    assert "Traceback" not in err


def test_everything_needed_arrives_and_nothing_else_is_asked_for(hub, tmp_path):
    # The transfer of a file that is more than one of the client's chunks (10 MB) breaks off once.
    hub.drop, hub.files[UNET] = UNET, b"unet" * 2_800_000
    code, out, err = _run(hub, tmp_path, "--yes")
    if hub.ranges == []:  # older clients leave going on to the next run
        _refused((code, out, err), "broken")
        code, out, err = _run(hub, tmp_path, "--yes")
    assert code == 0, err
    assert _downloaded(tmp_path / "sd") == {name: hub.files[name] for name in SMALL + BIG}
    assert sorted(hub.gets) == sorted([*SMALL, *BIG, UNET])
    assert hub.ranges == [UNET]
    assert all(name in hub.said for name in SMALL + BIG)
    assert all(word in hub.said for word in ("MB", "in all", str(tmp_path / "sd"), "OpenRAIL-M"))
    assert f"--model {tmp_path / 'sd'}" in out and "--model" not in hub.said

    # A second run fetches nothing; a third only what has been damaged since, whatever the
    # client's own notes say.
    hub.gets.clear()
    assert _run(hub, tmp_path)[0] == 0
    assert hub.gets == []
    damaged = tmp_path / "sd" / UNET
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    code, out, _ = _run(hub, tmp_path, "--yes")
    assert code == 0 and "replaces" in out
    assert set(hub.gets) == {UNET}
    assert damaged.read_bytes() == hub.files[UNET]


def test_half_precision_variants(hub, tmp_path):
    _refused(_run(hub, tmp_path, "--fp16", "--yes"), "does not have", HALF[0])
    hub.files |= {name: name.encode() for name in HALF}
    assert _run(hub, tmp_path, "--fp16", "--yes")[0] == 0
    assert sorted(hub.gets) == sorted(SMALL + HALF)


def test_nothing_is_fetched_without_a_yes(hub, tmp_path):
    _refused(_run(hub, tmp_path), "no terminal", "--yes")
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    os.write(ours, b"n\n")
    code, out, _ = _run(hub, tmp_path, stdin=theirs)
    assert code == 1 and "Download? [y/N]" in out
    assert hub.gets == [] and not (tmp_path / "sd").exists()
    os.write(ours, b"y\n")
    assert _run(hub, tmp_path, stdin=theirs)[0] == 0
    assert set(hub.gets) == {*SMALL, *BIG}
    os.close(ours)
    os.close(theirs)


def test_wrong_bytes_are_not_kept(hub, tmp_path):
    hub.corrupt = UNET
    _refused(_run(hub, tmp_path, "--yes"), UNET, "sha256")
    assert UNET not in _downloaded(tmp_path / "sd")
    hub.corrupt = SMALL[0]
    (tmp_path / "sd" / SMALL[0]).unlink()
    _refused(_run(hub, tmp_path, "--yes"), SMALL[0], "sha1")
    assert SMALL[0] not in _downloaded(tmp_path / "sd")
    hub.corrupt, hub.sizes = None, {SMALL[0]: 7}
    _refused(_run(hub, tmp_path, "--yes"), SMALL[0], "instead of 7")
    assert SMALL[0] not in _downloaded(tmp_path / "sd")


def test_a_hub_that_refuses_or_fails_or_is_not_there(hub, tmp_path):
    for status in (401, 404, 503):
        hub.status = status
        _refused(_run(hub, tmp_path, "--yes"), hub.address, str(status))
    nowhere = "http://127.0.0.1:9"
    _refused(_run(hub, tmp_path, "--yes", endpoint=nowhere), nowhere, "refused")


def test_disk_space_and_folder_are_checked_first(hub, tmp_path):
    hub.sizes = {UNET: 10**18}
    _refused(_run(hub, tmp_path, "--yes"), "MB free")
    assert not (tmp_path / "sd").exists()
    hub.sizes = {}
    (tmp_path / "sd").write_text("a file")
    _refused(_run(hub, tmp_path, "--yes"), str(tmp_path / "sd"))
    assert hub.gets == []


def test_ctrl_c(hub, tmp_path):
    hub.hang = UNET
    process = _start(hub, tmp_path, "--yes")
    try:
        deadline = time.monotonic() + 120
        while UNET not in hub.gets and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
    assert "Traceback" not in (tmp_path / "stderr").read_text()
    assert UNET not in _downloaded(tmp_path / "sd")
