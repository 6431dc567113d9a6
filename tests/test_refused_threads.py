"""Threads of the runtime that begin while memory is refused: each waits until its interpreter's state can be had."""

from __future__ import annotations

from children import check, shared_library

#: The first zeroed memory that a thread asks for, whoever asks, is refused; not main's.
SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>
extern void *__libc_calloc(size_t, size_t);
static int refused;
static __thread int asked;
int count_refused(void) { return __atomic_load_n(&refused, __ATOMIC_SEQ_CST); }
void *calloc(size_t n, size_t m) {
    if (asked++ >= 5 || syscall(SYS_gettid) == getpid())
        return __libc_calloc(n, m);
    __atomic_add_fetch(&refused, 1, __ATOMIC_SEQ_CST);
    errno = ENOMEM;
    return NULL;
}
"""


def test_a_thread_whose_state_is_refused_has_it_later(tmp_path):
    library = shared_library(tmp_path / "refuse.so", SOURCE)
    check(
        """
        import ctypes, gort
        from waiting import hold
        def main():
            calls = [gort.go(hold, 0.02) for _ in range(10)]
            for g in calls: g.join(timeout=20)
        gort.run(main)
        assert gort.stats()["hand_offs"] > 0
        assert ctypes.CDLL(None).count_refused() > 0
        print("ok")
        """,
        "ok",
        LD_PRELOAD=library,
    )
