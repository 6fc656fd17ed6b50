"""S3 servers that say no: all the time, or to one operation of one store."""

from __future__ import annotations

import http.server
import threading

__all__ = ["FaultyServer", "answer_instead"]


class FaultyServer:
    """Answers everything with one error."""

    def __init__(self, status, code):
        self.asked = []
        fault = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                self.rfile.read(int(self.headers.get("content-length", 0)))
                fault.asked.append(f"{self.command} {self.path}")
                name = self.path.split("?")[0]
                body = f"<Error><Code>{code}</Code><Message>No, {name}</Message></Error>".encode()
                body = b"" if self.command == "HEAD" or not code else body
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer  # noqa: N815

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def answer_instead(store, operation, status, code, *, body=None):
    """Have the client find this answer where it would have asked the server."""
    from botocore.awsrequest import AWSResponse

    asked = []

    class Raw:
        def __init__(self, data):
            self._data = data

        def stream(self, *_, **__):
            yield self._data

    def answer(request, **_):
        asked.append(request)
        text = body or f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()
        return AWSResponse(request.url, status, {"content-type": "application/xml"}, Raw(text))

    store._client.get().meta.events.register(f"before-send.s3.{operation}", answer)
    return asked
