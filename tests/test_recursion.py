"""Recursion to its limit, in Python and in C, on goroutines and on the main thread:
RecursionError or a result, never a crash.

Each case is a child process, so that a crash is a failed test with a code and a traceback.
"""

from __future__ import annotations

import pytest
from children import check

PRELUDE = """
import sys, gort

class Deep:
    # Each operation goes on to the next object, of `n` in all; n < 0: without end.
    def __init__(self, n):
        self.n = n
    def next(self):
        return self if self.n < 0 else Deep(self.n - 1)
    def __repr__(self):
        return "x" if self.n == 0 else repr([self.next()])
    def __getattr__(self, name):
        if name.startswith("__") or "n" not in self.__dict__:
            raise AttributeError(name)
        return 0 if self.n == 0 else getattr(self.next(), name)
    def __add__(self, other):
        return other if self.n == 0 else self.next() + other
    def __lt__(self, other):
        return sorted([self.next(), other]) is None
    def __hash__(self):
        return hash((self.next(),))
    def __eq__(self, other):
        return [self.next()] == [other]
    def __call__(self):
        return self.next()()
    def __iter__(self):
        return iter(list(self.next()))
    def __getitem__(self, i):
        return self.next()[i]
    def __bool__(self):
        return not self.next()
    def __format__(self, how):
        return format(self.next(), how)
    def __reduce__(self):
        return (Deep, (self.next(),))
    def __deepcopy__(self, memo):
        import copy
        return copy.deepcopy([self.next()], memo)
    def __enter__(self):
        with self.next():
            pass
    def __exit__(self, *_):
        pass
    def __index__(self):
        return range(10)[self.next()]

def function(n=-1):
    return n and 1 + function(n - 1)

def nested(n, make):
    value = None
    for _ in range(n):
        value = make(value)
    return value

def generator():
    yield from generator()

async def coroutine():
    await coroutine()

def key(x):
    return sorted([x], key=key)

class Meta(type):
    def __instancecheck__(cls, other):
        return isinstance(other, cls)

class Checked(metaclass=Meta):
    pass

class Property:
    @property
    def value(self):
        return self.value

class Compare(Deep):
    __eq__ = lambda self, other: self == other

def twice(n):
    import re
    return re.sub("a", lambda _: twice(n), "a")

def reduced(a, b):
    import functools
    return functools.reduce(reduced, [a, b])

def mapped(x):
    return list(map(mapped, [x]))

def run_in_context():
    import contextvars
    return contextvars.copy_context().run(run_in_context)

def wrapped_in_cache():
    import functools
    @functools.lru_cache
    def cached(n):
        return cached(n + 1)
    return cached(0)

def evaluated():
    return eval("evaluated()", globals())

def qsort():
    import ctypes
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    sys.unraisablehook = lambda _: None  # the last callback does not fit
    def compare(a, b):
        try:
            return run()
        except RecursionError:
            return 0
    def run():
        ctypes.CDLL(None).qsort((ctypes.c_int * 2)(2, 1), 2, 4, kind(compare))
        return 0
    run()
    raise RecursionError

def parse(text):
    import ast
    return ast.parse(text)

def say(word):
    sys.stdout.write(word + "\\n")  # in one piece: others print, too

def attempt(body):
    try:
        body()
    except (RecursionError, MemoryError, SyntaxError, OverflowError, ValueError) as error:
        say(type(error).__name__)
    else:
        say("worked")

def again(body):
    # Everything must go on after it: the goroutine, others, and the same once more.
    attempt(body)
    gort.gosched()
    attempt(body)
    gort.gosched()  # up to 3.13 the full depth is back after a park
    assert function(100) == 100
"""

# Without end: RecursionError, whatever the stack.
ENDLESS = {
    "function": "function()",
    "repr": "repr(Deep(-1))",
    "getattr": "Deep(-1).missing",
    "add": "Deep(-1) + 1",
    "sorted with key": "key(1)",
    "sorted with lt": "sorted([Deep(-1), Deep(-1)])",
    "hash": "hash(Deep(-1))",
    "eq": "Deep(-1) == 1",
    "eq of itself": "Compare(-1) == 1",
    "call": "Deep(-1)()",
    "iter": "iter(Deep(-1))",
    "getitem": "Deep(-1)[0]",
    "bool": "bool(Deep(-1))",
    "format": "format(Deep(-1), 'x')",
    "with": "Deep(-1).__enter__()",
    "index": "range(10)[Deep(-1)]",
    "pickle with reduce": "__import__('pickle').dumps(Deep(-1))",
    "deepcopy": "__import__('copy').deepcopy(Deep(-1))",
    "generators": "next(generator())",
    "coroutines": "coroutine().send(None)",
    "isinstance": "isinstance(1, Checked)",
    "property": "Property().value",
    "re.sub with a function": "twice(0)",
    "reduce": "reduced(1, 2)",
    "map": "mapped(1)",
    "Context.run": "run_in_context()",
    "lru_cache": "wrapped_in_cache()",
    "eval": "evaluated()",
    "ctypes callback": "qsort()",
    "json default": "__import__('json').dumps(Deep(-1), default=lambda x: [x.next()], check_circular=False)",
}

# Deep data: RecursionError, MemoryError of the parser, or a result; all of them on some version.
DEEP = {
    "json loads": "__import__('json').loads('[' * 100_000 + ']' * 100_000)",
    "json loads of objects": "__import__('json').loads('{\"a\":' * 100_000 + '1' + '}' * 100_000)",
    "json dumps": "__import__('json').dumps(nested(100_000, lambda x: [x]), check_circular=False)",
    "json dumps in Python": "__import__('json').dumps(nested(100_000, lambda x: {1: x}), indent=1)",
    "repr": "repr(nested(100_000, lambda x: [x]))",
    "repr of dicts": "repr(nested(100_000, lambda x: {1: x}))",
    "compare lists": "nested(100_000, lambda x: [x]) == nested(100_000, lambda x: [x])",
    "compare tuples": "nested(100_000, lambda x: (x, 1)) < nested(100_000, lambda x: (x, 2))",
    "pickle": "__import__('pickle').dumps(nested(100_000, lambda x: [x]))",
    "pickle in Python": "__import__('pickle')._dumps(nested(100_000, lambda x: [x]))",
    "deepcopy": "__import__('copy').deepcopy(nested(100_000, lambda x: [x]))",
    "ast of blocks": "parse(''.join(' ' * i + 'if 1:\\n' for i in range(95)) + ' ' * 95 + 'pass')",
    "literal_eval": "__import__('ast').literal_eval('[' * 80 + ']' * 80)",
    "ast to code": "compile(__import__('ast').Expression(nested(20_000, lambda x: __import__('ast').UnaryOp("
    "__import__('ast').USub(), x or __import__('ast').Constant(1, lineno=1, col_offset=0), lineno=1, col_offset=0))),"
    " 'x', 'eval')",
    "ast dump": "__import__('ast').dump(parse('-' * 900 + '1'))",
    "re of groups": "__import__('re').compile('(' * 5000 + ')' * 5000)",
    "re match": "__import__('re').match('(?:a|b)*?c', 'ab' * 100_000)",
    "re match of nested groups": "__import__('re').match('(' * 90 + 'a' + ')*' * 90, 'a' * 100)",
    "isinstance of nested tuples": "isinstance(1, nested(100_000, lambda x: (x,) if x else (str,)))",
    "str of exceptions": "str(nested(100_000, lambda x: ValueError(x)))",
    "free": "nested(1_000_000, lambda x: [x])",
    "free of generators": "nested(100_000, lambda x: (lambda y: (i for i in [y]))(x))",
    "free of partials": "nested(100_000, lambda x: __import__('functools').partial(print, x))",
    "unpickle": "__import__('pickle').loads(b']' * 50_000 + b'a' * 49_999 + b'.')",
    "union types": "repr(nested(50_000, lambda x: list[x]))",
    "sre of many branches": "__import__('re').compile('|'.join(['a(b|c)'] * 5000))",
}

# Nothing stops these before the stack ends but a constant that suits a thread's stack: they need one of that size.
UNCHECKED = {
    "ast of sums": "parse('+'.join(['1'] * 50_000))",
    "ast of attributes": "parse('a' + '.b' * 50_000)",
    "ast of calls": "parse('a' + '()' * 50_000)",
    "compile sums": "compile('x' + '+x' * 20_000, 'x', 'eval')",
    "compile attributes": "compile('a' + '.b' * 20_000, 'x', 'eval')",
    "hash tuples": "hash(nested(100_000, lambda x: (x,)))",
    "marshal": "__import__('marshal').dumps(nested(100_000, lambda x: [x]))",
    "ast of parentheses": "parse('(' * 5000 + ')' * 5000)",
    "ast of minuses": "parse('-' * 50_000 + '1')",
    "ast of comparisons": "parse('not ' * 50_000 + '1')",
    "ast of lambdas": "parse('lambda: ' * 3000 + '1')",
    "compile": "compile('-' * 50_000 + 'x', 'x', 'eval')",
    "parser of literals": "eval('[' * 150 + ']' * 150)",
    "itertools chain": "list(nested(10_000, lambda x: __import__('itertools').chain(x or [], [1])))",
    "zip of zips": "list(nested(50_000, lambda x: zip(x or [1])))",
    "map of maps": "list(nested(50_000, lambda x: map(abs, x or [1])))",
}

OUTCOMES = {"worked", "RecursionError", "MemoryError", "SyntaxError", "OverflowError", "ValueError"}

PLACES = {
    "goroutine": "gort.go(again, body).join()",
    "main": "again(body)",
    "roomy": "gort.spawn(again, (body,), stack_size=32 << 20).join()",
    "many": "[g.join() for g in [gort.go(again, body) for _ in range(3)]]",
}


def run(expression, place):
    return check(f"{PRELUDE}\nbody = lambda: {expression}\n{PLACES[place]}\n").split()


@pytest.mark.parametrize("place", ["goroutine", "main"])
@pytest.mark.parametrize("name", ENDLESS)
def test_recursion_without_end_raises(name, place):
    got = run(ENDLESS[name], place)
    assert len(got) == 2
    # The parser of 3.14 says MemoryError when the C stack ends in it.
    assert set(got) <= ({"RecursionError", "MemoryError"} if name == "eval" else {"RecursionError"})


@pytest.mark.parametrize("name", DEEP)
def test_deep_data_works_or_raises(name):
    got = run(DEEP[name], "goroutine")
    assert len(got) == 2
    assert set(got) <= OUTCOMES


@pytest.mark.parametrize("name", UNCHECKED)
def test_deep_data_without_a_check_works_or_raises_on_a_stack_of_a_threads_size(name):
    got = run(UNCHECKED[name], "roomy")
    assert len(got) == 2
    assert set(got) <= OUTCOMES


def test_many_goroutines_at_the_limit_each_raise():
    assert run("Deep(-1) + repr(Deep(-1))", "many") == ["RecursionError"] * 6
