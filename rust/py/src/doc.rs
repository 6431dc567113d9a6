//! Docstrings of the compiled names: what help() shows, each with an example that tests/test_exports.py runs.
//!
//! They stand apart so that the code that registers a function stays readable. Methods have one line where they are made.

use std::ffi::CStr;

pub(crate) const GO: &CStr = c"go(fn, /, *args, **kwargs)\n--\n
Start fn(*args, **kwargs) as a goroutine and return its Goroutine; blocks only if gort.memory.set_limit says so.

An exception that nobody takes with join() is reported through gort.excepthook.

Raises:
    TypeError: fn is not callable.
    MemoryError: there is no memory for it, or it would pass the limit.
    RuntimeStopped: the interpreter is ending.

Example:
    >>> import gort
    >>> gort.go(pow, 2, 10).join()
    1024
";

pub(crate) const SPAWN: &CStr = c"spawn(fn, args=(), kwargs=None, *, name=None, stack_size=None, locked=False, reserve=False, priority=None, group=None, labels=None)\n--\n
Start fn as a goroutine as go() does, with options; blocks no more than that.

Args:
    fn: what to run.
    args: its positional arguments.
    kwargs: its keyword arguments.
    name: shown in reports; default: goroutine- and its id.
    stack_size: bytes of native stack; None is the usual size.
    locked: bool; from its start it keeps an OS thread for itself, see lock_os_thread().
    reserve: bool, with locked only; when it wakes it goes before all others: who computes is interrupted at once.
    priority: int from -20 to 20, higher is more urgent; None has the caller's. See gort.set_policy().
    group: a gort.Group; None has the caller's.
    labels: dict of str, added to the caller's, which it has as well; see gort.labels.

Raises:
    TypeError, ValueError: an argument is no such thing.
    MemoryError: there is no memory for it, or it would pass the limit.

Example:
    >>> import gort
    >>> g = gort.spawn(pow, (2, 10), name='power')
    >>> g.name, g.join()
    ('power', 1024)
";

pub(crate) const SET_PRIORITY: &CStr = c"set_priority($self, priority, /)\n--\n
Change how urgent it is, from -20 to 20; returns False if it has ended.

Under the policy 'mlfq' it goes before lower ones, under 'fair' it gets 1.25 times as much for each step; see gort.set_policy().

Example:
    >>> import gort
    >>> g = gort.go(gort.sleep, 0)
    >>> g.set_priority(5), g.priority
    (True, 5)
";

pub(crate) const GOROUTINE_STATS: &CStr = c"stats($self, /)\n--\n
What was measured of it: a dict, or None if it has ended.

run_ns: CPU time. runs: how often it went on. wait_ns, longest_wait_ns: from being woken to running. m_migrations: how often
it went on on another OS thread, always counted. p_migrations: with another P. See gort.set_schedstats().

Example:
    >>> import gort
    >>> g = gort.go(gort.sleep, 0.1)
    >>> sorted(g.stats())
    ['longest_wait_ns', 'm_migrations', 'p_migrations', 'run_ns', 'runs', 'wait_ns']
";

pub(crate) const GROUP_STATS: &CStr = c"stats($self, /)\n--\n
What was measured of the group: a dict of run_ns (CPU time), throttled (how often its quota was used up), throttled_ns.

Example:
    >>> import gort
    >>> gort.Group('batch').stats()
    {'run_ns': 0, 'throttled': 0, 'throttled_ns': 0}
";

pub(crate) const GOSCHED: &CStr = c"gosched()\n--\n
Let other goroutines run first; the caller goes to the end of the queue.

Example:
    >>> import gort
    >>> gort.gosched()
";

pub(crate) const LOCK_OS_THREAD: &CStr = c"lock_os_thread()\n--\n
Keep the goroutine on the OS thread it is on, which runs no other one, until unlocked as often or ended.

The main goroutine's is the main thread: if that sits in another goroutine's call, parks until it is free. On a plain
thread it does nothing. Each hand-over between a locked goroutine and others is one between OS threads.

Example:
    >>> import gort
    >>> gort.lock_os_thread()
    >>> gort.unlock_os_thread()
";

pub(crate) const UNLOCK_OS_THREAD: &CStr = c"unlock_os_thread()\n--\n
Undo one lock_os_thread(); nothing if there is none. Never blocks.

Example:
    >>> import gort
    >>> gort.unlock_os_thread()
";

pub(crate) const GOEXIT: &CStr = c"goexit()\n--\n
End the calling goroutine: finally blocks run, nothing is reported, join() gives None.

Raises:
    GoroutineExit: inside the goroutine, to unwind it.

Example:
    >>> import gort
    >>> gort.go(gort.goexit).join() is None
    True
";

pub(crate) const SLEEP: &CStr = c"sleep(seconds, /, *, ctx=None)\n--\n
Park the goroutine for that many seconds; 0 lets others run. A plain thread sleeps as a thread.

Args:
    seconds: how long.
    ctx: a Context that ends it early.

Raises:
    ValueError: seconds is negative.
    ContextCanceled, DeadlineExceeded: ctx is done.

Example:
    >>> import gort
    >>> gort.sleep(0.001)
";

pub(crate) const CURRENT: &CStr = c"current()\n--\n
The running Goroutine; None on the main goroutine and on plain threads.

Example:
    >>> import gort
    >>> gort.current() is None
    True
    >>> g = gort.go(lambda: gort.current().id)
    >>> g.join() == g.id
    True
";

pub(crate) const NUM_GOROUTINE: &CStr = c"num_goroutine()\n--\n
How many goroutines are alive, the main one among them.

Example:
    >>> import gort
    >>> before = gort.num_goroutine()
    >>> g = gort.go(gort.Chan().recv)
    >>> gort.num_goroutine() - before, g.cancel()
    (1, True)
";

pub(crate) const GOROUTINES: &CStr = c"goroutines()\n--\n
A list of the live Goroutines but the main one.

Example:
    >>> import gort
    >>> g = gort.go(gort.Chan().recv)
    >>> g.id in [other.id for other in gort.goroutines()], g.cancel()
    (True, True)
";

pub(crate) const GOMAXPROCS: &CStr = c"gomaxprocs(n=None)\n--\n
The number of processors, set to n when it is given; returns the previous number. Never blocks.

Processors above the new number are given up by those who run on them at their next scheduling point.

Args:
    n: int, at most 1024; None or less than 1 changes nothing.

Raises:
    ValueError: n is too large.

Example:
    >>> import gort
    >>> gort.gomaxprocs() >= 1
    True
";

pub(crate) const STATS: &CStr = c"stats()\n--\n
Counts of the scheduler since it started, by name.

Example:
    >>> import gort
    >>> gort.stats()['goroutines'] >= 0
    True
";

pub(crate) const SELECT: &CStr = c"select(*cases, default=False, timeout=None, ctx=None)\n--\n
Wait until one of the cases can go on and do it; among several that can, one at random.

Args:
    cases: made by recv(ch) and send(ch, value).
    default: do not wait: give index -1 when no case can go on.
    timeout: wait at most that many seconds: then index -2.
    ctx: a Context: wait until it is done at most.

Returns:
    (index of the case, value received or None, False when the channel was closed and empty).

Raises:
    ContextCanceled, DeadlineExceeded: ctx is done, also if it was before and a case can go on.

Example:
    >>> import gort
    >>> ch = gort.Chan(1)
    >>> gort.select(gort.recv(ch), default=True)
    (-1, None, False)
    >>> ch.send('x')
    >>> gort.select(gort.recv(ch), gort.recv(None))
    (0, 'x', True)
";

pub(crate) const RECV: &CStr = c"recv(ch, /)\n--\n
A receive case for select(); ch None is the nil channel, which is never ready.

Example:
    >>> import gort
    >>> gort.select(gort.recv(None), timeout=0.001)
    (-2, None, False)
";

pub(crate) const SEND: &CStr = c"send(ch, value, /)\n--\n
A send case for select(); ch None is the nil channel, which is never ready.

Example:
    >>> import gort
    >>> ch = gort.Chan(1)
    >>> gort.select(gort.send(ch, 7))[0], ch.recv()
    (0, 7)
";

/// The docstring of a type that has none among its slots.
pub(crate) fn of_type(name: &CStr) -> Option<&'static CStr> {
    TYPES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

const TYPES: &[(&CStr, &CStr)] = &[
    (
        c"gort.Goroutine",
        c"A started goroutine, made by go() and spawn().

Example:
    >>> import gort
    >>> g = gort.go(len, 'four')
    >>> g.join(), g.done
    (4, True)
",
    ),
    (
        c"gort.Case",
        c"One case of a select, made by recv() and send().

Example:
    >>> import gort
    >>> type(gort.recv(gort.Chan())) is gort.Case
    True
",
    ),
    (
        c"gort.Chan",
        c"Chan(cap=0)\n--\n
A channel of values: unbuffered when cap is 0, else with room for cap values. Chan[int] is for type checkers.

send() and recv() park until the other side is there; close() ends the receivers' loops.

Raises:
    ValueError: cap is negative or too large.

Example:
    >>> import gort
    >>> ch = gort.Chan[int](2)
    >>> ch.send(1), ch.send(2), ch.close()
    (None, None, None)
    >>> list(ch)
    [1, 2]
",
    ),
    (
        c"gort.Mutex",
        c"Mutex()\n--\n
A lock; not re-entrant and not owned by a goroutine: any may unlock it.

Example:
    >>> import gort
    >>> m = gort.Mutex()
    >>> with m:
    ...     m.try_lock()
    False
",
    ),
    (
        c"gort.RWMutex",
        c"RWMutex()\n--\n
A lock held by one writer or any number of readers; a waiting writer goes first.",
    ),
    (
        c"gort.WaitGroup",
        c"WaitGroup()\n--\n
A counter of running work; wait() parks until it is back at zero.",
    ),
    (
        c"gort.Cond",
        c"Cond(lock)\n--\n
A condition variable on a Mutex or RWMutex: wait() lets go of the lock and parks.

Example:
    >>> import gort
    >>> lock, ready = gort.Mutex(), []
    >>> cond = gort.Cond(lock)
    >>> def waiter():
    ...     with lock:
    ...         while not ready:
    ...             cond.wait()
    >>> g = gort.go(waiter)
    >>> with lock:
    ...     ready.append(1)
    ...     cond.signal()
    >>> g.join()
",
    ),
    (
        c"gort.Semaphore",
        c"Semaphore(n)\n--\n
A counter of n permits; acquire(k) parks until k are free. Waiters are served in order.

Example:
    >>> import gort
    >>> s = gort.Semaphore(2)
    >>> with s:
    ...     s.try_acquire(2), s.try_acquire(1)
    (False, True)
",
    ),
];
