"""Subscribers of topics: each has a queue of its own, and a slow one loses its oldest news."""

import gort
from gort.pubsub import PubSub, Subscription


def read(news: Subscription[str]) -> list[str]:
    return list(news)  # until the hub is closed


def main() -> None:
    hub: PubSub[str] = PubSub(cap=2, slow="drop_old")
    sport, all_news = hub.subscribe("sport"), hub.subscribe("sport", "weather")
    sleepy = hub.subscribe("weather")  # reads nothing before the end
    readers = [gort.go(read, sport), gort.go(read, all_news)]
    for topic, text in [
        ("sport", "1:0"), ("weather", "rain"), ("weather", "sun"), ("sport", "1:1"),
        ("weather", "wind"),
    ]:  # fmt: skip
        print(f"{topic}: {text} for {hub.publish(topic, text)}")
        gort.sleep(0.002)  # those who read have read it
    hub.close()
    print(*(reader.join() for reader in readers), sep="\n")
    print(read(sleepy), sleepy.dropped, "lost")


if __name__ == "__main__":
    gort.run(main)
