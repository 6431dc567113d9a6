"""A cache in front of something slow: many ask, each key is loaded once, old ones give way."""

import gort
from gort.cache import ConcurrentCache

loads: list[str] = []


def load(key: str) -> str:
    loads.append(key)
    gort.sleep(0.005)  # a database
    if key == "missing":
        raise KeyError(key)
    return key.upper()


def main() -> None:
    cache: ConcurrentCache[str, str] = ConcurrentCache(max_size=2, ttl=60)
    askers = [gort.go(cache.get_or_load, key, load) for key in ["a", "b"] * 50]
    print({asker.join() for asker in askers} == {"A", "B"}, sorted(loads))
    for _ in range(2):
        try:
            cache.get_or_load("missing", load)
        except KeyError as error:
            print("not kept:", error)
    cache.get_or_load("c", load)
    print(len(cache), "kept,", cache.stats()["evictions"], "gave way")
    print("c is there:", cache.get("c"), "- and z is not:", cache.get("z"))


if __name__ == "__main__":
    gort.run(main)
