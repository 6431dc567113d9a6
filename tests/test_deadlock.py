"""When nothing can go on, and when it only looks so."""

from __future__ import annotations

from children import check


def test_goroutine_and_thread_that_wait_in_turn_are_no_deadlock():
    # Whoever looks for a deadlock may look at any moment: one of the two always goes on.
    check(
        """
        import threading, gort
        from gort import Chan, go

        def serve(there, back):
            for value in there:
                back.send(value * 2)

        def ask(there, back):
            out = []
            for i in range(200):
                there.send(i)
                out.append(back.recv())
            return out

        for _ in range(100):
            there, back = Chan(), Chan()
            thread = threading.Thread(target=serve, args=(there, back))
            thread.start()
            assert go(ask, there, back).join() == [2 * i for i in range(200)]
            there.close()
            thread.join()
        """
    )
