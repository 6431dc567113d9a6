"""Several copies of OpenSSL in one process: each keeps its errors apart for every goroutine."""

from __future__ import annotations

from children import check

# The interpreter's own libcrypto and two copies of its file, which are libraries of their own.
PROGRAM = """
import ctypes, os, shutil, ssl
import gort, gort.boundary
from children import rss_kib

def loaded():
    with open("/proc/self/maps") as maps:
        return {{line.split()[-1] for line in maps if "libcrypto" in line}}

(own,) = loaded()
copies = []
for name in ("one", "two"):
    os.mkdir(os.path.join({folder!r}, name))
    copies.append(shutil.copy(own, os.path.join({folder!r}, name)))
libraries = [ctypes.CDLL(path) for path in (own, *copies)]
assert loaded() == {{own, *copies}}
for library in libraries:
    library.BIO_new_file.restype = library.BIO_new_mem_buf.restype = ctypes.c_void_p
    library.ERR_peek_last_error.restype = library.ERR_get_error.restype = ctypes.c_ulong

def fail(library, kind):
    "Leaves an error of one of two kinds in the queue of whoever calls."
    if kind:
        assert library.BIO_new_mem_buf(None, 0) is None
    else:
        assert library.BIO_new_file(b"/nowhere/at/all", b"r") is None
    return library.ERR_peek_last_error()

def drain(library):
    while library.ERR_get_error():
        pass

kinds = [fail(libraries[0], kind) for kind in (0, 1)]
drain(libraries[0])
assert all(kinds) and kinds[0] != kinds[1]
"""


def test_errors_of_each_copy_stay_with_their_goroutine(tmp_path):
    check(
        PROGRAM.format(folder=str(tmp_path))
        + """
def body(number):
    mine = {}
    for place, library in enumerate(libraries):
        if (number >> place) % 2:
            mine[place] = fail(library, (number >> 3) % 2)
        gort.gosched()
    for _ in range(20):
        for place, library in enumerate(libraries):
            assert library.ERR_peek_last_error() == mine.get(place, 0), (place, mine)
        gort.sleep(0.0001)
    return mine

ended = [g.join(timeout=30) for g in [gort.go(body, number) for number in range(160)]]
for number, mine in enumerate(ended):
    assert list(mine) == [place for place in range(3) if (number >> place) % 2]
    assert set(mine.values()) <= {kinds[(number >> 3) % 2]}
assert [library.ERR_peek_last_error() for library in libraries] == [0, 0, 0]
known = {os.path.realpath(o.path): o.kind for o in gort.boundary.status().objects}
assert {known[path] for path in (own, *copies)} == {"OpenSSL"}, known
"""
    )


def test_what_a_copy_keeps_for_a_goroutine_ends_with_it(tmp_path):
    check(
        PROGRAM.format(folder=str(tmp_path))
        + """
def body():
    for library in libraries:
        fail(library, 0)

def rounds(count):
    for _ in range(count):
        for g in [gort.go(body) for _ in range(100)]:
            g.join(timeout=30)

rounds(20)
before = rss_kib()
rounds(200)
# 20,000 goroutines with an error in three queues each: more than 40 MB where one stays.
assert rss_kib() - before < 8_000, (before, rss_kib())
"""
    )
