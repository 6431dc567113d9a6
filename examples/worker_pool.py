"""A pool of workers: jobs come over one channel, results go back over another."""

import hashlib

import gort


def worker(jobs: gort.Chan[bytes], results: gort.Chan[tuple[bytes, str]]) -> None:
    for job in jobs:  # ends when jobs is closed and drained
        results.send((job, hashlib.sha256(job).hexdigest()[:12]))


def main() -> None:
    jobs: gort.Chan[bytes] = gort.Chan(16)
    results: gort.Chan[tuple[bytes, str]] = gort.Chan(16)
    workers = gort.WaitGroup()
    for _ in range(8):
        workers.go(worker, jobs, results)

    def feed() -> None:
        for n in range(1000):
            jobs.send(b"job %d" % n)
        jobs.close()
        workers.wait()
        results.close()

    gort.go(feed)
    found = dict(results)
    print(len(found), "results")
    print("job 7:", found[b"job 7"])


if __name__ == "__main__":
    gort.run(main)
