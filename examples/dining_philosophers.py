"""Five philosophers, five forks: nobody starves, for each takes the lower fork first."""

import gort

NAMES = ("Hypatia", "Laozi", "Ibn Rushd", "Simone", "Seneca")


def dine(name: str, first: gort.Mutex, second: gort.Mutex, meals: gort.Chan[str]) -> None:
    for _ in range(100):
        gort.gosched()  # thinks
        with first, second:
            meals.send(name)  # eats


def main() -> None:
    forks = [gort.Mutex() for _ in NAMES]
    meals, table = gort.Chan[str](), gort.WaitGroup()
    for seat, name in enumerate(NAMES):
        # In the same order for all: taking left before right would end in a circle of waiters,
        # which gort reports as a DeadlockError.
        first, second = sorted((seat, (seat + 1) % len(forks)))
        table.go(dine, name, forks[first], forks[second], meals)
    gort.go(lambda: (table.wait(), meals.close()))
    eaten = dict.fromkeys(NAMES, 0)
    for name in meals:
        eaten[name] += 1
    print(*(f"{name} ate {count} times" for name, count in eaten.items()), sep="\n")


if __name__ == "__main__":
    gort.run(main)
