"""A web server that gives parts of files, and cuts, stalls and fails when it is told to."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Fault = Callable[[str, int], "str | None"]
"""Name of a file and how many requests came for it before: what is to go wrong."""


@dataclass
class Site:
    """What a server does, and what it was asked."""

    folder: Path
    fault: Fault = lambda name, count: None
    stall_s: float = 5.0
    asked: list[tuple[str, int, int]] = field(default_factory=list)
    """File, first byte, last byte."""
    counts: Counter[str] = field(default_factory=Counter)
    address: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        site, name = self.site, self.path.partition("?")[0].rpartition("/")[2]
        with site.lock:
            count = site.counts[name]
            site.counts[name] += 1
        fault = site.fault(name, count)
        path = site.folder / name
        if fault is not None and fault.isdecimal():
            self.send_response(int(fault))
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        asked = self.headers.get("Range")
        start, stop = 0, len(data)
        if asked is not None and fault != "whole":
            first, last = asked.removeprefix("bytes=").split("-")
            start, stop = int(first), int(last) + 1
        with site.lock:
            site.asked.append((name, start, stop))
        if start or stop < len(data) or (asked is not None and fault != "whole"):
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        else:
            self.send_response(200)
        body = data[start:stop]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            if fault == "cut":
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
                self.connection.shutdown(1)
            elif fault == "stall":
                self.wfile.write(body[: len(body) // 3])
                self.wfile.flush()
                time.sleep(site.stall_s)
                self.close_connection = True
            else:
                self.wfile.write(body)
        except OSError:
            self.close_connection = True


@contextmanager
def serving(folder: Path, fault: Fault | None = None) -> Iterator[Site]:
    """Serve a folder on this machine."""
    site = Site(folder)
    if fault is not None:
        site.fault = fault
    handler = type("Handler", (_Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    site.address = f"http://127.0.0.1:{server.server_port}/data"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
