"""Flask, Django and Falcon applications, and the standard library's servers, as they are."""

from __future__ import annotations

import http.client
import http.server
import json
import socket
import socketserver
from importlib.util import find_spec
from wsgiref.simple_server import WSGIRequestHandler, make_server

import gort
import pytest
from waiting import LIMIT, join_all
from wsgi_tools import serving

FRAMEWORKS = ("flask", "django", "falcon")
CLIENTS = 50


def flask_app():
    from flask import Flask, Response, request, stream_with_context

    app = Flask("app")

    @app.get("/hello/<name>")
    def hello(name):
        return {"hello": name, "q": request.args.get("q")}

    @app.post("/echo")
    def echo():
        return Response(request.get_data(), content_type=request.content_type)

    @app.post("/upload")
    def upload():
        return {"bytes": len(request.files["f"].read()), "name": request.form["name"]}

    @app.get("/stream")
    def stream():
        def parts():
            for n in range(5):
                gort.sleep(0.001)  # another goroutine's turn, in the middle of a response
                yield f"{n};{request.args['q']};"

        return Response(stream_with_context(parts()))

    @app.get("/fails")
    def fails():
        raise KeyError("on purpose")

    return app


def django_app():
    import django
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
    from django.urls import path

    def hello(request, name):
        return JsonResponse({"hello": name, "q": request.GET.get("q")})

    def echo(request):
        return HttpResponse(request.body, content_type=request.headers["Content-Type"])

    def upload(request):
        return JsonResponse({"bytes": request.FILES["f"].size, "name": request.POST["name"]})

    def stream(request):
        q = request.GET["q"]
        return StreamingHttpResponse(f"{n};{q};" for n in range(5))

    def fails(request):
        raise KeyError("on purpose")

    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=Urls, ALLOWED_HOSTS=["*"], SECRET_KEY="x", LOGGING_CONFIG=None
        )
        django.setup()
    Urls.urlpatterns[:] = [
        path("hello/<name>", hello), path("echo", echo), path("upload", upload),
        path("stream", stream), path("fails", fails),
    ]  # fmt: skip
    return get_wsgi_application()


class Urls:
    """Django's table of addresses."""

    urlpatterns: list[object] = []


def falcon_app():
    import falcon

    class Hello:
        def on_get(self, request, response, name):
            response.media = {"hello": name, "q": request.get_param("q")}

    class Echo:
        def on_post(self, request, response):
            response.data = request.bounded_stream.read()
            response.content_type = request.content_type

    class Upload:
        def on_post(self, request, response):
            parts = {part.name: part.get_data() for part in request.get_media()}
            response.media = {"bytes": len(parts["f"]), "name": parts["name"].decode()}

    class Stream:
        def on_get(self, request, response):
            q = request.get_param("q")
            response.stream = (f"{n};{q};".encode() for n in range(5))

    class Fails:
        def on_get(self, request, response):
            raise KeyError("on purpose")

    app = falcon.App()
    for place, resource in {
        "/hello/{name}": Hello(), "/echo": Echo(), "/upload": Upload(), "/stream": Stream(), "/fails": Fails(),
    }.items():  # fmt: skip
        app.add_route(place, resource)
    return app


MAKERS = {"flask": flask_app, "django": django_app, "falcon": falcon_app}


@pytest.fixture(params=FRAMEWORKS)
def app(request):
    """An application of each framework; the Pythons they are tested on have all of them."""
    assert find_spec(request.param), f"{request.param} is not installed"
    return MAKERS[request.param]()


def use(port, n):
    """Be a client that does everything once over one connection."""
    client = http.client.HTTPConnection("127.0.0.1", port)

    def ask(method, path, body=None, kind="text/plain"):
        client.request(method, path, body, {"Content-Type": kind} if body is not None else {})
        response = client.getresponse()
        return response.status, response.read()

    status, data = ask("GET", f"/hello/me%20{n}?q=%C3%BC")
    assert (status, json.loads(data)) == (200, {"hello": f"me {n}", "q": "ü"})
    body = b"%d" % n * 5000
    assert ask("POST", "/echo", body) == (200, body)
    form = (
        b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nx%d\r\n'
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
        % n
        + body
        + b"\r\n--b--\r\n"
    )
    status, data = ask("POST", "/upload", form, "multipart/form-data; boundary=b")
    assert (status, json.loads(data)) == (200, {"bytes": len(body), "name": f"x{n}"})
    wanted = "".join(f"{k};{n};" for k in range(5)).encode()
    assert ask("GET", f"/stream?q={n}") == (200, wanted)
    assert ask("GET", "/nowhere")[0] == 404
    assert ask("GET", "/fails")[0] == 500
    assert ask("HEAD", f"/hello/{n}") in ((200, b""), (405, b""))  # falcon has no HEAD by itself
    client.close()


def test_framework_serves_many_clients_at_once(app):
    with serving(app) as server:
        join_all([gort.go(use, server.port, n) for n in range(CLIENTS)])


def test_wsgiref_server_runs_in_a_goroutine():
    class Quiet(WSGIRequestHandler):
        def log_message(self, *args):
            pass

    def app(environ, start_response):
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    server = make_server("127.0.0.1", 0, app, handler_class=Quiet)
    g = gort.go(server.serve_forever)
    client = http.client.HTTPConnection("127.0.0.1", server.server_port)
    client.request("GET", "/x")
    assert client.getresponse().read() == b"/x"
    client.close()
    server.shutdown()
    g.join(LIMIT)
    server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        data = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


class Echo(socketserver.StreamRequestHandler):
    """Gives lines back."""

    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


def http_client(port, n):
    client = http.client.HTTPConnection("127.0.0.1", port)
    for turn in range(3):
        client.request("GET", f"/{n}/{turn}")
        assert client.getresponse().read() == f"/{n}/{turn}".encode()
    client.close()


def line_client(port, n):
    with socket.create_connection(("127.0.0.1", port)) as sock, sock.makefile("rwb") as file:
        for turn in range(3):
            file.write(b"%d %d\n" % (n, turn))
            file.flush()
            assert file.readline() == b"%d %d\n" % (n, turn)


@pytest.mark.parametrize(
    ("kind", "handler", "client"),
    [
        (http.server.ThreadingHTTPServer, Handler, http_client),
        (socketserver.ThreadingTCPServer, Echo, line_client),
    ],
    ids=["http.server", "socketserver"],
)
def test_servers_of_the_standard_library_run_unchanged(kind, handler, client):
    with kind(("127.0.0.1", 0), handler) as server:
        server.socket.listen(CLIENTS)
        g = gort.go(server.serve_forever)
        join_all([gort.go(client, server.server_address[1], n) for n in range(CLIENTS)])
        gort.go(server.shutdown).join(LIMIT)
        g.join(LIMIT)
