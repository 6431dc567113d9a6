"""A TCP service that on SIGTERM takes no new work, finishes what it has begun, and ends."""

import os
import signal
import socket

import gort
from gort.context import Context, background, with_cancel


def serve(ctx: Context, listener: socket.socket) -> int:
    """Answer each connection in a goroutine until ctx is done; wait for all of them."""
    answers, answered = gort.WaitGroup(), gort.Chan[int](1000)
    gort.context.after_func(ctx, lambda: listener.shutdown(socket.SHUT_RDWR))  # ends accept()

    def answer(conn: socket.socket) -> None:
        with conn:
            name = conn.recv(100)
            gort.sleep(0.05)  # work that a shutdown does not cut off
            conn.sendall(b"done: " + name)
        answered.send(1)

    while ctx.err() is None:
        try:
            conn, _ = listener.accept()
        except OSError:
            break
        answers.go(answer, conn)
    answers.wait()
    return len(answered)


def client(port: int, n: int, asked: gort.WaitGroup) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as conn:
        conn.sendall(b"request %d" % n)
        asked.done()
        return conn.recv(100)


def main() -> None:
    ctx, cancel = with_cancel(background())
    signal.signal(signal.SIGTERM, lambda *_: cancel())
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = gort.go(serve, ctx, listener)
    asked = gort.WaitGroup()
    asked.add(5)
    clients = [gort.go(client, port, n, asked) for n in range(5)]
    asked.wait()
    gort.sleep(0.02)  # all five are being answered
    os.kill(os.getpid(), signal.SIGTERM)
    print(server.join(), "answered:")
    print(*sorted(g.join().decode() for g in clients), sep="\n")


if __name__ == "__main__":
    gort.run(main)
