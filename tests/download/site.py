"""A web server on this machine that serves published files, and misbehaves where it is told to."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@dataclass
class Site:
    """files: content by path (host first). faults: path -> what goes wrong there, in turn, one a request; the last one
    stays unless it is ''. asked: (path, Range header) of every request. pace: seconds before each 16 KiB."""

    files: dict[str, bytes]
    faults: dict[str, list[str]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    pace: float = 0.0
    address: str = ''


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    site: Site

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""

    def do_HEAD(self) -> None:
        """As the Hugging Face hub answers: the sum, the size and the commit of a file."""
        path = self.path.lstrip('/')
        data = self.site.files.get(path)
        if data is None or self.site.faults.get(path, [''])[0] == '404':
            return self._end(404, {'X-Error-Code': 'EntryNotFound'})
        self.send_response(200)
        for name, value in {
            'X-Repo-Commit': path.split('/resolve/')[1].split('/')[0],
            'ETag': f'"{hashlib.sha256(data).hexdigest()}"',
            'Content-Length': str(len(data)),
        }.items():
            self.send_header(name, value)
        return self.end_headers()

    def do_GET(self) -> None:
        site, path = self.site, self.path.lstrip('/')
        path = path if path in site.files else unquote(path)
        span = self.headers.get('Range', '')
        site.asked.append((path, span))
        faults = site.faults.get(path, [''])
        fault = faults.pop(0) if len(faults) > 1 else faults[0]
        data = site.files.get(path)
        if data is None or fault == '404':
            return self._end(404)
        if fault == '503':
            return self._end(503, {'Retry-After': '0'})
        start = int(span.removeprefix('bytes=').rstrip('-')) if span and fault != 'no ranges' else 0
        if start >= len(data):
            return self._end(416, {'Content-Range': f'bytes */{len(data)}'})
        if fault == 'wrong':
            data = data[:-1] + bytes([data[-1] ^ 1])
        if fault in ('longer', 'other'):
            data = data + b'x' if fault == 'longer' else b'x'
        self.send_response(206 if start else 200)
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(data) - 1}/{len(data)}')
        self.send_header('Content-Length', str(len(data) - start))
        self.end_headers()
        return self._body(data[start:], fault)

    def _end(self, code: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {'Content-Length': '0', **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, data: bytes, fault: str) -> None:
        if fault in ('truncated', 'slow'):
            data = data[: len(data) // 2]
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(data), 1 << 14):
                time.sleep(self.site.pace)
                self.wfile.write(data[at : at + (1 << 14)])
            self.wfile.flush()
            if fault == 'slow':
                time.sleep(1.5)
            if fault in ('truncated', 'slow'):
                self.close_connection = True
                self.connection.close()


@contextlib.contextmanager
def served(files: dict[str, bytes]) -> Iterator[Site]:
    """A site with these files, at `address`."""
    site = Site(files)
    handler = type('Handler', (_Handler,), {'site': site})
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda request, client: None  # a client that was killed
    site.address = f'http://127.0.0.1:{server.server_address[1]}'
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
