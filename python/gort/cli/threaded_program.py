"""An ordinary threaded program, as `gort demo` runs it: plain, and with its threads as goroutines.

A server with a thread for each connection, workers behind a queue, clients that are threads too.
"""

import hashlib
import queue
import socket
import threading
import time

CLIENTS, REQUESTS, WORKERS, PAUSE = 400, 10, 200, 0.01
JOBS: queue.Queue[tuple[bytes, queue.Queue[bytes]]] = queue.Queue()
READY = threading.Barrier(CLIENTS)
FOUND: list[str] = []  # append is one step


def worker() -> None:
    """Answer jobs: a pause, as for a disk or a database, and a hash."""
    while True:
        line, answer = JOBS.get()
        time.sleep(PAUSE)
        answer.put(hashlib.sha256(line).hexdigest().encode())


def serve(conn: socket.socket) -> None:
    """One connection: a line in, a line out."""
    answer: queue.Queue[bytes] = queue.Queue()
    with conn, conn.makefile("rwb") as stream:
        for line in stream:
            JOBS.put((line.strip(), answer))
            stream.write(answer.get(timeout=60) + b"\n")
            stream.flush()


def client(number: int, port: int) -> None:
    """Ask, all clients together, and keep the answers."""
    with socket.create_connection(("127.0.0.1", port)) as conn, conn.makefile("rwb") as stream:
        READY.wait()
        for i in range(REQUESTS):
            stream.write(f"{number} {i}\n".encode())
            stream.flush()
            FOUND.append(stream.readline().decode().strip())


if __name__ == "__main__":
    server = socket.create_server(("127.0.0.1", 0), backlog=CLIENTS)
    port = server.getsockname()[1]
    for _ in range(WORKERS):
        threading.Thread(target=worker, daemon=True).start()
    clients = [threading.Thread(target=client, args=(i, port)) for i in range(CLIENTS)]
    for one in clients:
        one.start()
    for _ in range(CLIENTS):
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
    for one in clients:
        one.join()
    print(len(FOUND), "answers", hashlib.sha256("".join(sorted(FOUND)).encode()).hexdigest()[:16])
