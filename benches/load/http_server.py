"""An ordinary threaded HTTP server, as the standard library has it: nothing here knows gort."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answer every GET with the same short body, on a connection that is kept."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"x" * 120
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Keep quiet."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
