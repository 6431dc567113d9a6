"""gort.pubsub: who gets what, in which order, and what becomes of slow subscribers."""

from __future__ import annotations

import gc

import gort
import pytest
from gort.pubsub import Broadcast, PubSub, SlowSubscriber
from gort.testing import no_leaks, synctest
from waiting import LIMIT, OnThread, eventually, join_all, parked, waiter

SLOW = ["block", "drop_new", "drop_old", "cut"]


@pytest.mark.parametrize("slow", SLOW)
def test_each_value_goes_to_all(slow, anywhere):
    def body():
        with Broadcast(5, slow=slow) as news:
            readers = [news.subscribe() for _ in range(3)]
            assert [news.send(n) for n in range(5)] == [3] * 5
        assert [list(reader) for reader in readers] == [[0, 1, 2, 3, 4]] * 3
        assert [reader.dropped for reader in readers] == [0, 0, 0]

    anywhere(body)


def test_subscriber_gets_what_comes_after_it_came():
    news = Broadcast(5, slow="block")
    assert news.send(0) == 0
    early = news.subscribe()
    news.send(1)
    late = news.subscribe()
    news.send(2)
    news.close()
    assert list(early) == [1, 2] and list(late) == [2]


def test_block_waits_for_the_slowest_and_disturbs_no_other():
    with no_leaks():
        news = Broadcast(1, slow="block")
        slow, fast = news.subscribe(), news.subscribe()
        assert news.send(0) == 2
        assert fast.recv() == 0
        g = waiter(news.send, 1)
        assert fast.recv(timeout=LIMIT) == 1  # it need not wait for the other
        assert not g.done
        assert slow.recv() == 0
        assert g.join(timeout=LIMIT) == 2 and slow.recv() == 1


@synctest.test
def test_block_with_a_time_out():
    news = Broadcast(1, slow="block")
    full, free = news.subscribe(), news.subscribe()
    news.send(0)
    free.recv()
    with pytest.raises(TimeoutError, match="no room at 1 of 2 subscribers"):
        news.send(1, timeout=3)
    assert free.recv() == 1 and full.recv() == 0
    with pytest.raises(TimeoutError):
        full.recv(timeout=1)
    assert news.send(2) == 2


def test_unbuffered_block_hands_over():
    with no_leaks():
        news = Broadcast(slow="block")
        readers = [waiter(news.subscribe().recv) for _ in range(3)]
        assert news.send("x") == 3
        assert join_all(readers) == ["x"] * 3


def test_drop_new_keeps_the_first():
    news = Broadcast(2, slow="drop_new")
    reader, other = news.subscribe(), news.subscribe()
    given = []
    for n in range(5):
        given.append(news.send(n))
        other.recv()
    news.close()
    assert given == [2, 2, 1, 1, 1] and list(reader) == [0, 1]
    assert (reader.dropped, other.dropped) == (3, 0)


def test_drop_old_keeps_the_last():
    news = Broadcast(2, slow="drop_old")
    reader = news.subscribe()
    assert [news.send(n) for n in range(5)] == [1] * 5
    news.close()
    assert list(reader) == [3, 4] and reader.dropped == 3


def test_cut_ends_the_slow_one_and_says_so():
    news = Broadcast(2, slow="cut")
    slow, fast = news.subscribe(), news.subscribe()
    given = []
    for n in range(4):
        given.append(news.send(n))
        fast.recv()
    assert given == [2, 2, 1, 1]
    assert slow.recv() == 0 and next(slow) == 1
    for receive in (slow.recv, slow.recv_ok, lambda: next(slow), lambda: list(slow)):
        with pytest.raises(SlowSubscriber):
            receive()


def test_closing_a_subscription_ends_it_and_lets_the_sender_go_on():
    with no_leaks():
        news = Broadcast(1, slow="block")
        gone, stays = news.subscribe(), news.subscribe()
        news.send(0)
        g = waiter(news.send, 1)
        gone.close()
        gone.close()
        assert stays.recv() == 0 and stays.recv(timeout=LIMIT) == 1
        assert g.join(timeout=LIMIT) == 1
        assert list(gone) == [0]  # what was queued
        assert news.send(2) == 1


def test_subscription_that_is_dropped_is_closed():
    with no_leaks():
        news = Broadcast(1, slow="block")
        reader = news.subscribe()
        news.send(0)
        g = waiter(news.send, 1)
        del reader
        gc.collect()
        assert g.join(timeout=LIMIT) == 0
        assert news.send(2) == 0


def test_closing_the_sender_ends_all_and_lets_senders_go():
    with no_leaks():
        news = Broadcast(1, slow="block")
        reader = news.subscribe()
        idle = waiter(list, news.subscribe())
        news.send(0)
        parked(idle)
        g = waiter(news.send, 1)
        parked(idle)
        news.close()
        news.close()
        g.join(timeout=LIMIT)
        assert list(reader) == [0] and idle.join(timeout=LIMIT) == [0, 1]
        with pytest.raises(gort.ChanClosed, match="send on closed channel"):
            news.send(2)
        assert list(news.subscribe()) == []


def test_all_see_the_same_order_of_several_senders():
    with no_leaks():
        news = Broadcast(3, slow="block")
        readers = [gort.go(list, news.subscribe()) for _ in range(4)]
        readers.append(OnThread(list, news.subscribe()))

        def sends(k):
            for n in range(100):
                news.send((k, n))

        senders = [gort.go(sends, k) for k in range(4)] + [OnThread(sends, 4)]
        join_all(senders)
        news.close()
        seen = join_all(readers)
        assert all(one == seen[0] for one in seen) and len(seen[0]) == 500
        for k in range(5):
            assert [n for j, n in seen[0] if j == k] == list(range(100))


def test_cancelled_sender_leaves_the_rest_working():
    with no_leaks():
        news = Broadcast(slow="block")
        reader = news.subscribe()
        g = waiter(news.send, 1)
        other = waiter(news.send, 2)  # waits for its turn
        g.cancel()
        with pytest.raises(gort.Cancelled):
            g.join(timeout=LIMIT)
        assert reader.recv(timeout=LIMIT) == 2 and other.join(timeout=LIMIT) == 1


def test_subscription_in_select():
    news = Broadcast(1, slow="block")
    reader = news.subscribe()
    g = gort.go(gort.select, gort.recv(gort.Chan()), gort.recv(reader))
    parked(g)
    news.send("x")
    assert g.join(timeout=LIMIT) == (1, "x", True)


def test_topics():
    hub = PubSub(10, slow="block")
    a, b, both = hub.subscribe("a"), hub.subscribe(("b", 1)), hub.subscribe("a", ("b", 1))
    assert [hub.publish("a", 1), hub.publish(("b", 1), 2), hub.publish("c", 3)] == [2, 2, 0]
    both.close()
    assert [hub.publish("a", 4), hub.publish(("b", 1), 5)] == [1, 1]
    hub.close()
    assert list(a) == [1, 4] and list(b) == [2, 5] and list(both) == [1, 2]
    with pytest.raises(gort.ChanClosed):
        hub.publish("a", 6)
    assert list(hub.subscribe("a")) == []


def test_topic_that_nobody_wants_any_more_is_forgotten():
    hub = PubSub(1, slow="drop_new")
    for n in range(100):
        hub.subscribe(n).close()
        assert hub.publish(n, "x") == 0
    assert hub._topics == {}
    reader = hub.subscribe(5)
    assert hub.publish(5, "y") == 1 and reader.recv() == "y"


def test_subscribers_that_come_and_go_while_others_publish():
    with no_leaks():
        hub, stop = PubSub(2, slow="drop_old"), []
        publishers = [
            gort.go(lambda k=k: [hub.publish(k % 2, n) or gort.gosched() for n in range(300)])
            for k in range(4)
        ]

        def comes_and_goes():
            for n in range(60):
                with hub.subscribe(n % 2) as reader:
                    gort.gosched()
                    while reader._recv_chan.try_recv()[2] and not stop:
                        pass

        join_all(publishers + [gort.go(comes_and_goes) for _ in range(8)])
        hub.publish(0, 1), hub.publish(1, 1)
        assert hub._topics == {}


def test_bad_arguments():
    for make in (Broadcast, PubSub):
        with pytest.raises(TypeError):
            make(1)  # what becomes of slow ones has to be said
        with pytest.raises(ValueError, match="slow is 'block', 'drop_new', 'drop_old' or 'cut'"):
            make(1, slow="drop")
        with pytest.raises(ValueError, match="cap must be 0 or more, not -1"):
            make(-1, slow="block")
        with pytest.raises(ValueError, match="cap must be 1 or more, not 0"):
            make(0, slow="drop_old")
    hub = PubSub(1, slow="block")
    with pytest.raises(TypeError, match="needs a topic"):
        hub.subscribe()
    with pytest.raises(TypeError, match="unhashable"):
        hub.subscribe("a", [])
    eventually(lambda: hub.publish("a", 1) == 0)
    for timeout in (-1, float("nan")):
        with pytest.raises(ValueError, match="timeout must be"):
            hub.publish("a", 1, timeout)
