"""Local servers that keep what they are sent: a webhook, a mail server, a collector of OpenTelemetry metrics."""

from __future__ import annotations

import email
import email.policy
import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

Json = dict[str, Any]


class Sink(ThreadingHTTPServer):
    """Takes every POST and keeps path and body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Post)
        self.bodies: list[tuple[str, bytes]] = []
        self.headers: list[dict[str, str]] = []

    @property
    def messages(self) -> list[Json]:
        """The bodies as JSON."""
        return [json.loads(body) for _, body in list(self.bodies)]

    @property
    def metrics(self) -> list[tuple[str, dict[str, str]]]:
        """Names and attributes of the data points in bodies of OpenTelemetry's protocol."""
        found = []
        for _, body in list(self.bodies):
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        data = getattr(metric, metric.WhichOneof("data") or "gauge")
                        found += [
                            (metric.name, {a.key: a.value.string_value for a in point.attributes})
                            for point in data.data_points
                        ]
        return found


class _Post(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.headers.append(dict(self.headers))
        zipped = self.headers.get("Content-Encoding") == "gzip"
        self.server.bodies.append((self.path, gzip.decompress(body) if zipped else body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class MailSink(ThreadingTCPServer):
    """The least of a mail server (RFC 5321): no TLS, no login, everybody is known."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Mail)
        self.mails: list[tuple[list[str], email.message.EmailMessage]] = []


class _Mail(StreamRequestHandler):
    server: MailSink

    def handle(self) -> None:
        self._say("220 sink")
        to: list[str] = []
        while line := self.rfile.readline().decode().strip():
            word = line.split(" ", 1)[0].upper()
            if word == "RCPT":
                to.append(line.partition("<")[2].partition(">")[0])
            if word == "DATA":
                self._say("354 go on")
                self.server.mails.append((to, self._mail()))
                to = []
            if word == "QUIT":
                self._say("221 bye")
                return
            self._say("250 yes")

    def _mail(self) -> email.message.EmailMessage:
        lines: list[bytes] = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b"."))
        made = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
        assert isinstance(made, email.message.EmailMessage)
        return made

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@contextmanager
def serving(server: Any) -> Iterator[Any]:
    """Serve in a thread for the time of the block."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
