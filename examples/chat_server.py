"""The core of a chat server: plain sockets, a goroutine for each side of a client, one hub."""

import socket

import gort

Message = tuple[str, str, gort.Chan[str]]


def hub(events: gort.Chan[Message]) -> None:
    """Alone owns the list of clients, so that it needs no lock."""
    clients: dict[gort.Chan[str], str] = {}
    for kind, text, inbox in events:
        if kind == "join":
            clients[inbox] = text
            inbox.send(f"welcome {text}")
        line = f"{clients[inbox]}: {text}" if kind == "say" else f"{clients[inbox]} {kind}s"
        if kind == "leave":
            del clients[inbox]
            inbox.close()
        for other in clients:
            if other is not inbox:
                other.try_send(line)  # who does not read loses lines; nobody waits for him


def serve(conn: socket.socket, events: gort.Chan[Message]) -> None:
    """Read lines of one client; a second goroutine writes what others say."""
    inbox = gort.Chan[str](64)

    def write() -> None:
        for line in inbox:
            conn.sendall(f"{line}\n".encode())

    with conn, conn.makefile() as lines:
        writer = gort.go(write)
        events.send(("join", next(lines).strip(), inbox))
        for line in lines:
            events.send(("say", line.strip(), inbox))
        events.send(("leave", "", inbox))
        writer.join()


def main() -> None:
    events = gort.Chan[Message]()
    gort.go(hub, events)
    ends = []
    for name in ("ann", "bob"):
        ours, theirs = socket.socketpair()
        gort.go(serve, theirs, events)
        ours.sendall(f"{name}\n".encode())
        ends.append(ours.makefile("rw"))
        print(ends[-1].readline(), end="")
    print("ann reads:", ends[0].readline(), end="")
    print("hello", file=ends[0], flush=True)
    print("bob reads:", ends[1].readline(), end="")


if __name__ == "__main__":
    gort.run(main)
