"""A supervisor starts workers anew when they fail, later each time, and gives up on one at last."""

from collections.abc import Callable

import gort


def supervise(
    work: Callable[[int], str], attempts: int = 4, first_pause: float = 0.001
) -> tuple[str, list[str]]:
    """Run `work(attempt)` in a goroutine of its own until one returns; what it failed with."""
    failures = []
    for attempt in range(attempts):
        g = gort.spawn(work, (attempt,), name=f"{work.__name__}-{attempt}")
        try:
            return g.join(), failures
        except Exception as failure:  # noqa: BLE001 - whatever a worker dies of
            failures.append(f"{g.name}: {failure}")
            gort.sleep(first_pause * 2**attempt)
    return "given up", failures


def steady(attempt: int) -> str:
    return "steady is fine"


def flaky(attempt: int) -> str:
    if attempt < 2:
        raise ConnectionError("no connection")
    return "flaky made it"


def hopeless(attempt: int) -> str:
    raise ValueError("always wrong")


def main() -> None:
    supervisors = [gort.go(supervise, work) for work in (steady, flaky, hopeless)]
    for supervisor in supervisors:
        result, failures = supervisor.join()
        print(result, failures)


if __name__ == "__main__":
    gort.run(main)
