"""A wire between client and server that counts requests and can fail as networks and servers do."""

import http.client
import re
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit


@dataclass
class Broken:
    """What a request gets instead of the server's answer.

    Attributes:
        status: Of the answer; 0: the server's own answer, cut off in the middle of its body.
        code: S3's word for the error.
    """

    status: int = 0
    code: str = ""


@dataclass
class Wire:
    """A proxy before an S3 server. `rule` is called with method and path of every request; None lets it pass.

    Attributes:
        upstream: The server's address, http://host:port.
        rewrite: What becomes of the body of an answer.
        requests: Method and path of every request that came.
    """

    upstream: str
    rule: Callable[[str, str], Broken | None] = lambda method, path: None
    rewrite: Callable[[bytes], bytes] = lambda body: body
    requests: list[tuple[str, str]] = field(default_factory=list)

    def __enter__(self) -> Self:
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
                pass

            def handle(self) -> None:
                with suppress(ConnectionError):  # the client was killed
                    super().handle()

            def answer(self) -> None:
                address = urlsplit(self.path)
                path = unquote(address.path)
                wire.requests.append(("TAGS" if "tagging" in address.query else self.command, path))
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                broken = wire.rule(self.command, path)
                try:
                    if broken is not None and broken.status:
                        wire.refuse(self, broken)
                    else:
                        wire.forward(self, body, cut=broken is not None)
                except OSError:  # the server is away: so is this connection
                    self.close_connection = True

        for method in ("GET", "PUT", "HEAD", "POST", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.answer)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        """Where the wire begins."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def gets(self) -> Counter[str]:
        """How often each object was asked for; listings and tags are no objects."""
        return Counter(path for method, path in self.requests if method == "GET" and re.fullmatch(r"/[^/]+/.+", path))

    def refuse(self, client: BaseHTTPRequestHandler, broken: Broken) -> None:
        text = f"<Error><Code>{broken.code}</Code><Message>planted</Message></Error>".encode()
        client.send_response(broken.status)
        client.send_header("Content-Length", str(len(text)))
        client.end_headers()
        client.wfile.write(text)

    def forward(self, client: BaseHTTPRequestHandler, body: bytes, cut: bool) -> None:
        server = http.client.HTTPConnection(self.upstream.removeprefix("http://"), timeout=60)
        server.putrequest(client.command, client.path, skip_host=True, skip_accept_encoding=True)
        for name, value in client.headers.items():
            server.putheader(name, value)
        server.endheaders(body or None)
        answer = server.getresponse()
        data = self.rewrite(answer.read())
        client.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "content-length", "connection", "date", "server"}:
                client.send_header(name, value)
        length = answer.getheader("Content-Length") if client.command == "HEAD" else str(len(data))
        client.send_header("Content-Length", length or "0")
        client.end_headers()
        client.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            client.close_connection = True
        server.close()
