"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of test/chan/powser1.go: power series as goroutines that give one coefficient per request.
Fractions take the place of the rationals, and the end of a series is None. The two checks of no
value in Go (a count of 0) ask for 10 here.
"""

from fractions import Fraction
from math import factorial

from gort import Chan, go, recv, select, send
from waiting import in_goroutine

N = 10


class Series:
    """A pair of channels: requests, and coefficients in answer."""

    def __init__(self):
        self.req, self.dat = Chan(), Chan()

    def get(self):
        self.req.send(None)
        return self.dat.recv()

    def put(self, value):
        self.req.recv()
        self.dat.send(value)

    def copy_to(self, out):
        while True:
            out.req.recv()
            out.dat.send(self.get())


def started(body):
    """A new series that the goroutine `body` feeds."""
    z = Series()
    go(body, z)
    return z


def get2(u, v):
    """One coefficient of each, in whatever order requests and answers are ready (Go's getn)."""
    series, out = [u, v], [None, None]
    req, dat = [u.req, v.req], [None, None]
    for _ in range(4):
        i, value, _ = select(send(req[0], None), send(req[1], None), recv(dat[0]), recv(dat[1]))
        if i < 2:
            dat[i], req[i] = series[i].dat, None
        else:
            out[i - 2], dat[i - 2] = value, None
    return out


def do_split(source, out, wait):
    both = False
    if select(recv(out[0].req), recv(wait))[0] == 1:
        both = True
        if select(recv(out[0].req), recv(out[1].req))[0] == 1:
            out = out[::-1]
    source.req.send(None)
    release = Chan()
    go(do_split, source, out, release)
    value = source.dat.recv()
    out[0].dat.send(value)
    if not both:
        wait.recv()
    out[1].req.recv()
    out[1].dat.send(value)
    release.send(None)


def split_into(source, out):
    release = Chan()
    go(do_split, source, out, release)
    release.send(None)


def split(source):
    out = [Series(), Series()]
    go(split_into, source, out)
    return out


def repeat(value):
    def body(z):
        while True:
            z.put(Fraction(value))

    return started(body)


def add(u, v):
    def body(z):
        while True:
            z.req.recv()
            a, b = get2(u, v)
            if a is None or b is None:
                z.dat.send(b if a is None else a)
                if a is not None or b is not None:
                    (v if a is None else u).copy_to(z)
            else:
                z.dat.send(a + b)

    return started(body)


def scale(c, u):
    def body(z):
        while True:
            z.req.recv()
            a = u.get()
            if a is None:
                break
            z.dat.send(c * a)
        z.dat.send(None)

    return started(body)


def subtract(u, v):
    return add(u, scale(Fraction(-1), v))


def shift(c, u):
    def body(z):
        z.put(c)
        u.copy_to(z)

    return started(body)


def multiply(u, v):
    def body(z):
        z.req.recv()
        a, b = get2(u, v)
        if a is None or b is None:
            z.dat.send(None)
            return
        z.dat.send(a * b)
        uu, vv = split(u), split(v)
        w = add(scale(a, vv[0]), scale(b, uu[0]))
        z.req.recv()
        z.dat.send(w.get())
        add(w, multiply(uu[1], vv[1])).copy_to(z)

    return started(body)


def differentiate(u):
    def body(z):
        z.req.recv()
        a, i = u.get(), 1
        while a is not None and (a := u.get()) is not None:
            z.dat.send(i * a)
            z.req.recv()
            i += 1
        z.dat.send(None)

    return started(body)


def integrate(c, u):
    def body(z):
        z.put(c)
        i = 1
        while True:
            z.req.recv()
            a = u.get()
            if a is None:
                break
            z.dat.send(a / i)
            i += 1
        z.dat.send(None)

    return started(body)


def exponential(u):
    zz = [Series(), Series()]
    split_into(integrate(Fraction(1), multiply(zz[0], differentiate(u))), zz)
    return zz[1]


def reciprocal(u):
    def body(z):
        zz = [Series(), Series()]
        z.req.recv()
        first = 1 / u.get()
        z.dat.send(first)
        split_into(multiply(scale(-first, u), shift(first, zz[0])), zz)
        zz[1].copy_to(z)

    return started(body)


def substitute_monomial(u, c0, n):
    def body(z):
        c = Fraction(1)
        while True:
            z.req.recv()
            a = u.get()
            if a is None:
                z.dat.send(None)
                return
            z.dat.send(a * c)
            c *= c0
            for _ in range(n - 1):
                z.put(Fraction(0))

    return started(body)


def ones():
    return repeat(1)


def coefficients(make, n=N):
    """The first `n` coefficients of a series, asked for in a goroutine."""

    def body():
        series = make()
        return [series.get() for _ in range(n)]

    return in_goroutine(body)


def test_powser1_ones():
    assert coefficients(ones) == [1] * N


def test_powser1_add_and_subtract():
    assert coefficients(lambda: add(ones(), repeat(2))) == [3] * N
    assert coefficients(lambda: subtract(ones(), repeat(2))) == [-1] * N


def test_powser1_differentiate():
    assert coefficients(lambda: differentiate(ones())) == list(range(1, N + 1))


def test_powser1_integrate():
    assert coefficients(lambda: integrate(Fraction(0), ones())) == [0] + [
        Fraction(1, i) for i in range(1, N)
    ]


def test_powser1_scale():
    assert coefficients(lambda: scale(Fraction(-1), repeat(2))) == [-2] * N


def test_powser1_multiply():
    assert coefficients(lambda: multiply(ones(), ones())) == list(range(1, N + 1))


def test_powser1_exponential():
    # The coefficients of exp(x/(1-x)) are the numbers of sets of lists over n!.
    numbers = [1, 1, 3, 13, 73, 501, 4051, 37633, 394353, 4596553]
    want = [Fraction(a, factorial(n)) for n, a in enumerate(numbers)]
    assert coefficients(lambda: exponential(ones())) == want


def test_powser1_reciprocal():
    assert coefficients(lambda: reciprocal(ones()), 5) == [1, -1, 0, 0, 0]


def test_powser1_arc_tangent():
    got = coefficients(lambda: integrate(Fraction(0), substitute_monomial(ones(), Fraction(-1), 2)))
    signs = [1, -1, 1, -1, 1]
    assert got == [0 if i % 2 == 0 else Fraction(signs[i // 2], i) for i in range(N)]
