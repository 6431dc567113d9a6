"""Plain threads and goroutines use the same channels; only the thread sleeps as a thread."""

import threading

import gort


def thread_body(requests: gort.Chan[int], replies: gort.Chan[tuple[int, str]]) -> None:
    for n in requests:
        replies.send((n, threading.current_thread().name))


def ask(n: int, requests: gort.Chan[int]) -> None:
    requests.send(n)


def main() -> None:
    requests: gort.Chan[int] = gort.Chan()
    replies: gort.Chan[tuple[int, str]] = gort.Chan()
    threads = [
        threading.Thread(target=thread_body, args=(requests, replies), name=f"thread-{i}")
        for i in range(2)
    ]
    for thread in threads:
        thread.start()
    for n in range(100):
        gort.go(ask, n, requests)
    answers = [replies.recv() for _ in range(100)]
    requests.close()
    for thread in threads:
        thread.join()
    print(sorted(n for n, _ in answers) == list(range(100)))
    print({name for _, name in answers} <= {"thread-0", "thread-1"})
    print(gort.go(lambda: "and a thread can start goroutines, as main does here").join())


if __name__ == "__main__":
    main()  # no gort.run(): a script works without it
