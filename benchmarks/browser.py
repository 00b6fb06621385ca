"""Headless Chromium on a folder that is served on localhost: a page runs and sends back what it found."""

import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
PAGE, REPLY = "test.html", "/reply"
# What a page of tests begins with; `reply` may be called once.
REPLY_JS = f"""
const reply = (value) => fetch("{REPLY}", {{ method: "POST", body: JSON.stringify(value) }});
const failed = (error) => reply({{ error: String(error.stack ?? error) }});
addEventListener("error", (event) => failed(event.error ?? event.message));
addEventListener("unhandledrejection", (event) => failed(event.reason));
"""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path, files: Mapping[str, bytes | Path]) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.files, self.reply, self.replied = files, None, threading.Event()
        self.requests = list[str]()


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        """A file of memory, or of the folder."""
        server = self.server
        assert isinstance(server, _Server)
        path = self.path.partition("?")[0].removeprefix("/")
        server.requests.append(path)
        if path not in server.files:
            super().do_GET()
            return
        content = server.files[path]
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        self.end_headers()
        self.wfile.write(content if isinstance(content, bytes) else content.read_bytes())

    def do_POST(self) -> None:
        """The page's reply."""
        server = self.server
        assert isinstance(server, _Server)
        server.reply = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        server.replied.set()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the tests' output is not a server's log."""


def chromium() -> str | None:
    """The program, or None where there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def served(folder: Path, files: Mapping[str, bytes | Path]) -> Iterator[tuple[str, _Server]]:
    """``folder`` and, before it, ``files`` by name at the address that is given."""
    server = _Server(folder, files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", server
    finally:
        server.shutdown()
        server.server_close()


def reply_of(folder: Path, script: str, files: Mapping[str, bytes | Path] = {}, seconds: float = 120) -> Any:
    """What a module ``script`` on a page in ``folder`` hands to ``reply``. Raises RuntimeError for its errors, and
    TimeoutError."""
    page = f"<!doctype html><script>{REPLY_JS}</script><script type='module'>{script}</script><body></body>"
    with served(folder, {**files, PAGE: page.encode()}) as (address, server), _browser(address + PAGE) as process:
        if not server.replied.wait(seconds):
            raise TimeoutError(f"no reply in {seconds:g} s; chromium is at {process.poll()}; {server.requests[-9:]}")
    if isinstance(server.reply, dict) and "error" in server.reply:
        raise RuntimeError(server.reply["error"])
    return server.reply


def screenshot(address: str, out: Path, size: tuple[int, int], wait_ms: int = 15_000) -> None:
    """A picture of the page at ``address``, ``wait_ms`` of its own time after it was opened."""
    more = [f"--screenshot={out}", f"--window-size={size[0]},{size[1]}", f"--virtual-time-budget={wait_ms}"]
    with _browser(address, *more) as process:
        process.wait(120)


@contextmanager
def _browser(address: str, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    program = chromium()
    if program is None:
        raise FileNotFoundError("chromium is not installed: apt-get install chromium")
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        command = [program, *FLAGS, f"--user-data-dir={profile}", *more, address]
        nowhere = subprocess.DEVNULL
        process = subprocess.Popen(command, stdout=nowhere, stderr=nowhere, start_new_session=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 15)
                process.wait(20)
