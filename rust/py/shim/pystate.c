/* What a goroutine owns of the interpreter, field by field: the only code that knows struct _ts.
 *
 * Compiled once per CPython minor version against that version's own headers, so that offsets are always theirs.
 * Sources: CPython 3.11 to 3.15, Include/cpython/pystate.h, Python/pystate.c (push_chunk, clear_datastack,
 * tstate_activate), Python/ceval_gil.c. For 3.11 and 3.12 the runtime structure is read too; both are frozen releases. */
#define _GNU_SOURCE /* dladdr1 */
#define PY_SSIZE_T_CLEAN
#include <patchlevel.h>
#if PY_VERSION_HEX < 0x030D0000
#define Py_BUILD_CORE 1
#endif
#include <Python.h>
#if PY_VERSION_HEX < 0x030D0000
#include <internal/pycore_runtime.h>
#include <internal/pycore_frame.h>
#include <internal/pycore_interp.h>
#include <internal/pycore_pystate.h>
#endif
#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <sys/uio.h>
#include <unistd.h>

static PyThreadState *main_state;

int gort_is_detached(PyThreadState *t);
void gort_renew_profile(PyThreadState *t);
int gort_is_main(PyThreadState *t);

/* What pthread_self answers the main goroutine; 0 while pthread_self answers by OS thread. */
static unsigned long main_identity;

/* Where the interpreter keeps which OS thread may run signal handlers; NULL when it could not be found. */
static unsigned long *main_thread_word;

#if PY_VERSION_HEX >= 0x030D0000
/* Where the interpreter keeps the state whose evaluator signals stop, behind the id of its thread; NULL if unknown. */
static PyThreadState **main_state_word;
#endif

#if PY_VERSION_HEX >= 0x030D0000
/* _PyRuntime.main_thread. Its offset moves between patch releases, so it is looked for: the first word of _PyRuntime that
 * holds this thread's id (the main thread state, which holds it too, lies behind it), and believed only if signal.c
 * refuses what belongs to the main thread while the word is 0. */
static unsigned long *find_main_thread_word(void) {
    void *symbol = dlsym(RTLD_DEFAULT, "_PyRuntime");
    Dl_info info;
    ElfW(Sym) *entry = NULL;
    if (symbol == NULL || !dladdr1(symbol, &info, (void **)&entry, RTLD_DL_SYMENT) || entry == NULL)
        return NULL;
    unsigned long *word = symbol, *end = word + entry->st_size / sizeof(*word), me = PyThread_get_thread_ident();
    while (word < end && *word != me)
        word++;
    PyObject *module = word < end ? PyImport_ImportModule("_signal") : NULL;
    if (module == NULL) {
        PyErr_Clear();
        return NULL;
    }
    *word = 0;
    PyObject *result = PyObject_CallMethod(module, "set_wakeup_fd", "i", -1);
    *word = me;
    int right = result == NULL && PyErr_ExceptionMatches(PyExc_ValueError);
    PyErr_Clear();
    if (result != NULL) {
        Py_XDECREF(PyObject_CallMethod(module, "set_wakeup_fd", "O", result));
        PyErr_Clear();
        Py_DECREF(result);
    }
    Py_DECREF(module);
    return right ? word : NULL;
}
#endif

/* The state of the main goroutine. Called once, on the main thread, with the GIL. Returns whether that goroutine may go on
 * on another OS thread and still be the one that signals reach. */
int gort_set_main(PyThreadState *t) {
    main_state = t;
#if PY_VERSION_HEX >= 0x030D0000
    if (main_thread_word == NULL)
        main_thread_word = find_main_thread_word();
    if (main_thread_word != NULL && (PyThreadState *)main_thread_word[1] == t)
        main_state_word = (PyThreadState **)&main_thread_word[1];
    if (main_state_word != NULL)
        *main_state_word = t; /* in a child that a plain thread forked it is still the parent's */
#else
    main_thread_word = &_PyRuntime.main_thread;
#endif
    return main_thread_word != NULL;
}

int gort_is_main(PyThreadState *t) { return t == main_state; }

/* From now on each goroutine has an identity of its own, the main goroutine `identity`, wherever they run. */
void gort_set_identity(unsigned long identity) {
    main_identity = identity;
    if (main_thread_word != NULL)
        *main_thread_word = identity;
}

/* Whether the calling thread has the GIL. */
int gort_holds_gil(void) {
#if PY_VERSION_HEX >= 0x030D0000
    return PyThreadState_GetUnchecked() != NULL;
#elif PY_VERSION_HEX >= 0x030C0000
    return _PyThreadState_UncheckedGet() != NULL;
#else
    return PyGILState_Check(); /* the current state of 3.11 is that of any thread */
#endif
}

/* In a forked child, before PyOS_AfterFork_Child: `t` is the main goroutine's state, NULL if there is none (yet). Its
 * `identity` is 0 where goroutines have none. Returns whether it may go on on another OS thread. */
int gort_forked(PyThreadState *t, unsigned long identity) {
    main_state = t;
    main_identity = identity;
    if (t != NULL) {
        if (identity == 0)
            t->thread_id = PyThread_get_thread_ident();
#if PY_VERSION_HEX >= 0x030D0000
        /* CPython leaves it at the state of the parent's main thread, which it then deletes. */
        if (main_state_word != NULL)
            *main_state_word = t;
#endif
    }
    return t != NULL && main_thread_word != NULL;
}

/* Whether there are states beside `besides` that are not made here: those of plain threads, and of threads that are
 * goroutines. */
int gort_has_threads(PyThreadState *besides) {
    PyThreadState *t = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    for (; t != NULL; t = PyThreadState_Next(t))
        if (t != besides && t->thread_id != (unsigned long)(uintptr_t)t)
            return 1;
    return 0;
}

/* The evaluator takes its data stack in chunks of 16 KiB, by mmap, and gives one back as soon as it is empty. Behind a root
 * chunk of a few frames that is at every deep call: chunks given back are therefore kept here, for the next to ask. All
 * callers hold the GIL. Other sizes (pymalloc's arenas) pass. */
#define CHUNK_BYTES (16 * 1024)
#define KEPT_CHUNKS 64
static PyObjectArenaAllocator arenas;
static void *kept[KEPT_CHUNKS];
static int kept_count;

static void *take_arena(void *context, size_t bytes) {
    if (bytes == CHUNK_BYTES && kept_count > 0)
        return kept[--kept_count];
    return arenas.alloc(context, bytes);
}

static void give_arena(void *context, void *start, size_t bytes) {
    if (((uintptr_t)start & 4095) != 0)
        return; /* a root chunk: part of an object of the runtime's */
    if (bytes == CHUNK_BYTES && kept_count < KEPT_CHUNKS)
        kept[kept_count++] = start;
    else
        arenas.free(context, start, bytes);
}

/* Gives back what is kept. With the GIL. */
void gort_forget_chunks(void) {
    while (kept_count > 0)
        arenas.free(arenas.ctx, kept[--kept_count], CHUNK_BYTES);
}

/* Called once, with the GIL. */
void gort_keep_chunks(void) {
    PyObject_GetArenaAllocator(&arenas);
    PyObjectArenaAllocator ours = {arenas.ctx, take_arena, give_arena};
    PyObject_SetArenaAllocator(&ours);
}

/* C recursion a stack of `bytes` is let in for: half a KiB a level. What takes more meets the soft guard. */
static int c_levels(size_t bytes) { return (int)(bytes / 512); }

/* A number of its own as thread id: sys._current_frames() tells goroutines apart, and gort_forget_states knows them. */
static void mark_as_ours(PyThreadState *t) { t->thread_id = (unsigned long)(uintptr_t)t; }

/* A new state of the calling thread's; NULL where memory is refused. PyThreadState_New of 3.11 looks into it unseen then. Needs no
 * GIL. */
static PyThreadState *new_state(PyInterpreterState *interpreter) {
#if PY_VERSION_HEX < 0x030C0000
    PyThreadState *t = _PyThreadState_Prealloc(interpreter);
    if (t != NULL)
        _PyThreadState_SetCurrent(t);
    return t;
#else
    return PyThreadState_New(interpreter);
#endif
}

/* The state an M idles on. Needs no GIL. */
PyThreadState *gort_new_home(void) {
#if PY_VERSION_HEX < 0x030D0000
    /* The first state of a list lies in the interpreter; these versions do not take it twice. In a forked child the list is
     * empty when the only thread has ended. */
    PyInterpreterState *main = PyInterpreterState_Main();
    if (PyInterpreterState_ThreadHead(main) == NULL) {
#if PY_VERSION_HEX >= 0x030C0000
        memset(&main->_initial_thread._status, 0, sizeof(main->_initial_thread._status));
#else
        main->_initial_thread._initialized = 0;
#endif
    }
#endif
    PyThreadState *t = new_state(PyInterpreterState_Main());
    if (t != NULL)
        mark_as_ours(t);
    return t;
}

/* At exit, GIL held: takes our states out of the interpreter's list. Finalisation would free them, while Ms that wait for
 * the GIL still look into theirs to see that they must end; and it would unmap root chunks that are not its own. */
void gort_forget_states(void) {
    /* The list's head is internal; a new state becomes it, so that all others have a predecessor. */
    PyThreadState *head = new_state(PyInterpreterState_Get());
    if (head == NULL)
        return;
    for (PyThreadState *t = head, *next; t != NULL; t = next) {
        next = t->next;
        if (t != head && t->prev != NULL && t->thread_id == (unsigned long)(uintptr_t)t) {
            t->prev->next = t->next;
            if (t->next != NULL)
                t->next->prev = t->prev;
#if PY_VERSION_HEX >= 0x030E0000
            *(volatile int *)&t->state = 3; /* _Py_THREAD_SHUTTING_DOWN: finalisation sets it in the states it finds */
#endif
        }
    }
}

/* Makes the `chunk_bytes` at `place` the first data-stack chunk of a state that has none. Never page-aligned: the chunks that
 * CPython took itself are, and give_arena tells them by that when CPython gives back all that a deleted state has. */
void gort_give_chunk(PyThreadState *t, uintptr_t place, size_t chunk_bytes) {
    if (t->datastack_chunk != NULL)
        return;
    size_t shift = (place & 4095) == 0 ? 16 : 0;
    place += shift;
    chunk_bytes -= shift;
    _PyStackChunk *chunk = (_PyStackChunk *)place;
    chunk->previous = NULL;
    chunk->size = chunk_bytes;
    chunk->top = 0;
    t->datastack_chunk = chunk;
    t->datastack_top = &chunk->data[1];
    t->datastack_limit = (PyObject **)(place + chunk_bytes);
}

/* Bytes of its first data-stack chunk that a state uses; SIZE_MAX: it has gone on in another one. */
size_t gort_chunk_used(PyThreadState *t) {
    _PyStackChunk *chunk = t->datastack_chunk;
    if (chunk == NULL || chunk->previous != NULL || ((uintptr_t)chunk & 4095) == 0)
        return SIZE_MAX;
    return (size_t)((char *)t->datastack_top - (char *)chunk);
}

/* The interpreter's frames of a parked goroutine, as far as they, and what leads to them, may lie on its C stack: that of each
 * entry into the evaluator since 3.12, before that the evaluator's own record. Who looks at the state (tracebacks, the collector of
 * 3.14, py-spy) follows these pointers and reads what is there. */
#if PY_VERSION_HEX >= 0x030D0000
/* The second word in 3.13 to 3.15; gort_knows_frames looks whether it is. */
#define PREVIOUS(frame) ((void **)(frame) + 1)
/* f_frame of a frame object: behind the head and f_back. */
#define FRAME_OF(object) (*(void **)((char *)(object) + sizeof(PyObject) + sizeof(void *)))
#else
#define PREVIOUS(frame) ((void **)&((_PyInterpreterFrame *)(frame))->previous)
#endif

#if PY_VERSION_HEX >= 0x030D0000
/* Whether a frame would lie where frames of `t` do: on this stack above `here`, or in the newest chunk. */
static int is_of(PyThreadState *t, void *frame, uintptr_t here) {
    uintptr_t at = (uintptr_t)frame, chunk = (uintptr_t)t->datastack_chunk;
    return at - here < (1 << 20) || (chunk != 0 && at - chunk < t->datastack_chunk->size);
}

/* Walks the caller's own frames both ways, by frame objects and by PREVIOUS: 1 if they agree, 0 if not, -1 if there are none. */
static int compare_frames(void) {
    PyThreadState *t = PyThreadState_Get();
    PyFrameObject *object = PyThreadState_GetFrame(t);
    if (object == NULL)
        return -1;
    uintptr_t here = (uintptr_t)&object;
    void *frame = t->current_frame;
    int right = FRAME_OF(object) == frame;
    while (right && object != NULL) {
        PyFrameObject *back = PyFrame_GetBack(object);
        Py_DECREF(object);
        void *expected = back == NULL ? NULL : FRAME_OF(back);
        object = back;
        frame = *PREVIOUS(frame);
        /* Frames without an object lie between: of entries into the evaluator, on this stack, and of calls of classes. */
        for (int i = 0; i < 3 && frame != expected && is_of(t, frame, here); i++)
            frame = *PREVIOUS(frame);
#if PY_VERSION_HEX >= 0x030F0000
        if (frame == t->base_frame)
            frame = NULL; /* where each state's frames end */
#endif
        right = frame == expected;
    }
    Py_XDECREF(object);
    return right;
}
#endif

/* Whether PREVIOUS is right, as far as it could be seen yet. GIL held. */
int gort_knows_frames(void) {
#if PY_VERSION_HEX >= 0x030D0000
    static int known, tries;
    /* Where frames lie that this knows nothing of, or deeper than it looks, another caller may see more. */
    if (!known && tries < 64) {
        int right = compare_frames();
        tries += right >= 0;
        known = right == 1;
    }
    return known;
#else
    return 1; /* finished releases, whose own headers say where it is */
#endif
}

/* Where what is at `at`, and is read up to `bytes` on, is to be found from now on. */
typedef uintptr_t (*Place)(void *arg, uintptr_t at, size_t bytes);

static void lead(void **pointer, size_t bytes, Place place, void *arg) {
    void *to = (void *)place(arg, (uintptr_t)*pointer, bytes);
    if (to != *pointer)
        *pointer = to; /* by one store: whoever looks meanwhile reads it here or there */
}

/* More than a frame without variables has, and one slot of its own. */
#define FRAME_BYTES 128

/* Leads each pointer of a parked goroutine's state to what may lie on its C stack. */
void gort_lead(PyThreadState *t, Place place, void *arg) {
#if PY_VERSION_HEX >= 0x030D0000
    void **frame = (void **)&t->current_frame;
#else
    lead((void **)&t->cframe, sizeof(*t->cframe), place, arg);
    void **frame = (void **)&t->cframe->current_frame;
#endif
    while (*frame != NULL) {
        lead(frame, FRAME_BYTES, place, arg);
        frame = PREVIOUS(*frame);
    }
}

/* The state of a goroutine on the stack [base, top). Its first data-stack chunk is the `chunk_bytes` at `chunk`. */
PyThreadState *gort_new_thread(uintptr_t base, uintptr_t top, uintptr_t chunk, size_t chunk_bytes) {
    PyThreadState *t = new_state(PyInterpreterState_Get());
    if (t == NULL) {
        PyErr_Clear();
        return NULL;
    }
    mark_as_ours(t);
    gort_give_chunk(t, chunk, chunk_bytes);
#if PY_VERSION_HEX >= 0x030E0000
    static int (*protect)(PyThreadState *, void *, size_t);
    static int looked;
    if (!looked) {
        *(void **)&protect = dlsym(RTLD_DEFAULT, "PyUnstable_ThreadState_SetStackProtection");
        looked = 1;
    }
    if (protect != NULL && protect(t, (void *)base, top - base) < 0)
        PyErr_Clear();
#elif PY_VERSION_HEX >= 0x030C0000
    if (t->c_recursion_remaining > c_levels(top - base))
        t->c_recursion_remaining = c_levels(top - base);
#endif
    (void)base;
    (void)c_levels;
    return t;
}

/* Takes our chunk out, so that CPython does not unmap it: its own are page-aligned. Home states have none. */
static void drop_root_chunk(PyThreadState *t) {
    _PyStackChunk *chunk = t->datastack_chunk;
    if (chunk != NULL && chunk->previous == NULL && ((uintptr_t)chunk & 4095) != 0) {
        t->datastack_chunk = NULL;
        t->datastack_top = NULL;
        t->datastack_limit = NULL;
    }
}

#if PY_VERSION_HEX >= 0x030E0000
/* The evaluator looks at the stack pointer itself. */
int gort_end_recursion(PyThreadState *t) { return (void)t, 0; }
void gort_restore_recursion(PyThreadState *t, int taken) { (void)t, (void)taken; }
#else
/* How many more calls the C stack may take; 3.11 has one counter for everything. */
static int *calls_left(PyThreadState *t) {
#if PY_VERSION_HEX >= 0x030C0000
    return &t->c_recursion_remaining;
#else
    return &t->recursion_remaining;
#endif
}

/* The next recursive call raises RecursionError. Called in a signal handler, on the thread whose state this is. */
int gort_end_recursion(PyThreadState *t) {
    int taken = *calls_left(t);
    if (taken <= 0)
        return 0;
    *calls_left(t) = 0;
    return taken;
}

void gort_restore_recursion(PyThreadState *t, int taken) { *calls_left(t) += taken; }
#endif

void gort_delete_thread(PyThreadState *t) {
    drop_root_chunk(t);
    PyThreadState_Delete(t);
}

/* The home state of the calling thread, current: at the thread's end. The GIL is free then. */
void gort_end_home(PyThreadState *t) {
    PyThreadState_Clear(t);
    PyThreadState_DeleteCurrent();
}

/* Whether a signal waits for the main goroutine. Any thread, no GIL. */
int gort_signals_pending(void) {
#if PY_VERSION_HEX >= 0x030D0000
    /* Bit 1 of eval_breaker: _PY_SIGNALS_PENDING_BIT, pycore_ceval.h of 3.13 to 3.15. */
    return main_state != NULL && (*(volatile uintptr_t *)&main_state->eval_breaker & 2) != 0;
#else
    if (main_state == NULL || _Py_atomic_load_relaxed(&_PyRuntime.ceval.signals_pending) == 0)
        return 0;
    /* A signal that arrives while another goroutine runs on the main thread, or on another thread, does not stop the
     * evaluator of the main goroutine: it would compute on for ever. Set for nothing, the flag only costs a look. */
    _Py_atomic_store_relaxed(&main_state->interp->ceval.eval_breaker, 1);
    return 1;
#endif
}

/* Has whoever holds the GIL, `t` in all likelihood, give it to the calling thread, which waits for it next, at its next look
 * and not when the switch interval is over. Any thread. The holder waits until somebody has taken it, so somebody must: as in
 * take_gil of Python/ceval_gil.c. */
void gort_hurry(PyThreadState *t) {
#if PY_VERSION_HEX >= 0x030D0000
    _Py_atomic_or_uintptr(&t->eval_breaker, 1); /* _PY_GIL_DROP_REQUEST_BIT, pycore_ceval.h of 3.13 to 3.15 */
#else
    _Py_atomic_store_relaxed(&t->interp->ceval.gil_drop_request, 1);
    _Py_atomic_store_relaxed(&t->interp->ceval.eval_breaker, 1);
#endif
}

/* Takes that back where nobody may come any more. With the GIL. */
void gort_end_hurry(void) {
    PyThreadState *t = PyThreadState_Get();
#if PY_VERSION_HEX >= 0x030D0000
    _Py_atomic_and_uintptr(&t->eval_breaker, ~(uintptr_t)1);
#else
    _Py_atomic_store_relaxed(&t->interp->ceval.gil_drop_request, 0);
#endif
}

void gort_switch(PyThreadState *to) {
    if (to->c_profilefunc != NULL)
        gort_renew_profile(to);
    PyThreadState *from = PyThreadState_Swap(to);
#if PY_VERSION_HEX < 0x030C0000
    /* PyGILState_Ensure looks here; Swap of 3.11 does not move it. */
    PyThread_tss_set(&_PyRuntime.gilstate.autoTSSkey, to);
#define WAITING_CALLS to->interp->ceval.pending
#elif PY_VERSION_HEX < 0x030D0000
#define WAITING_CALLS _PyRuntime.ceval.pending_mainthread
#endif
#ifdef WAITING_CALLS
    /* Calls that wait for the main thread (Py_AddPendingCall) stop its evaluator only when it takes the GIL itself. */
    if (to == main_state && _Py_atomic_load_relaxed(&WAITING_CALLS.calls_to_do))
        _Py_atomic_store_relaxed(&to->interp->ceval.eval_breaker, 1);
#endif
    /* Signals belong to the main goroutine: while another runs on its thread nobody is the main thread. */
    if (main_identity != 0) {
        if (to == main_state)
            gort_signals_pending();
    } else if (to == main_state) {
        /* Finalisation (3.12+) spares whatever runs on the thread that the finalising state names. */
        to->thread_id = PyThread_get_thread_ident();
        if (main_thread_word != NULL)
            *main_thread_word = to->thread_id;
        gort_signals_pending();
    } else if (from == main_state && main_thread_word != NULL) {
        *main_thread_word = 0;
    }
}

void gort_attach(PyThreadState *t) {
    PyEval_RestoreThread(t);
#if PY_VERSION_HEX < 0x030C0000
    PyThread_tss_set(&_PyRuntime.gilstate.autoTSSkey, t);
#endif
}

/* Where the calling thread stands, whose goroutine has `t`: 0 with t, 1 with no state, 2 with another one (a
 * subinterpreter's), or where t is NULL, its own being gone. For signal handlers too. 3.11 keeps the current state of all
 * threads in one word, so that there another one is somebody else's. From 3.13 on a thread that ends waits for the lock of all
 * states with the GIL, but with no state (_PyThreadState_DeleteCurrent): its own one alone says that it is attached, and
 * nothing here may take it for either. */
int gort_standing(PyThreadState *t) {
    if (t == NULL)
        return 2;
#if PY_VERSION_HEX >= 0x030D0000
    PyThreadState *now = PyThreadState_GetUnchecked();
    if (now == NULL)
        return gort_is_detached(t) ? 1 : 2;
    return now == t ? 0 : 2;
#elif PY_VERSION_HEX >= 0x030C0000
    PyThreadState *now = _PyThreadState_UncheckedGet();
    return now == t ? 0 : now == NULL ? 1 : 2;
#else
    return _Py_atomic_load_relaxed(&_PyRuntime.gilstate.tstate_current) != (uintptr_t)t;
#endif
}

/* The state current on the calling thread, which holds the GIL. */
PyThreadState *gort_current_state(void) { return PyThreadState_Get(); }

/* The state that the thread to be started with this argument of pythread_wrapper will attach, or NULL if it is none of
 * _thread's. The wrapper's argument is {function, argument}, the latter thread_run's bootstate, which holds the new state
 * among its first words; whether a word is that is seen by the interpreter's list, where a new one stands in front.
 * Sources: Python/thread_pthread.h, Modules/_threadmodule.c of 3.11 to 3.15. `thread_run` is learnt from a probe. */
static void *thread_run;
static int probing;

void gort_probe_threads(int on) { probing = on; }
int gort_knows_threads(void) { return thread_run != NULL; }

PyThreadState *gort_state_of_thread(void *argument) {
    void **callback = argument;
    if (probing && thread_run == NULL)
        thread_run = callback[0];
    if (probing || thread_run == NULL || callback[0] != thread_run)
        return NULL;
    void **boot = callback[1];
    PyThreadState *t = PyInterpreterState_ThreadHead(PyThreadState_Get()->interp);
    for (int i = 0; t != NULL && i < 16; i++, t = PyThreadState_Next(t)) {
        for (int word = 0; word < 5; word++)
            if (boot[word] == t && t->thread_id != (unsigned long)(uintptr_t)t)
                return t;
    }
    return NULL;
}

/* Like gort_is_detached, of memory that may be gone: then the answer means nothing. */
int gort_seems_detached(PyThreadState *t) {
#if PY_VERSION_HEX < 0x030C0000
    return gort_is_detached(t);
#else
#if PY_VERSION_HEX >= 0x030D0000
    int state;
    void *where = &t->state;
#else
    __typeof__(t->_status) state;
    void *where = &t->_status;
#endif
    struct iovec to = {&state, sizeof(state)}, from = {where, sizeof(state)};
    if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != (ssize_t)sizeof(state))
        return 0;
#if PY_VERSION_HEX >= 0x030D0000
    return state == 0;
#else
    return !state.active;
#endif
#endif
}

int gort_is_detached(PyThreadState *t) {
#if PY_VERSION_HEX >= 0x030D0000
    return *(volatile int *)&t->state == 0;
#elif PY_VERSION_HEX >= 0x030C0000
    return !((volatile PyThreadState *)t)->_status.active;
#else
    return _Py_atomic_load_relaxed(&_PyRuntime.gilstate.tstate_current) != (uintptr_t)t;
#endif
}

/* Whether the state is as new: nothing in it that the next goroutine must not see. */
int gort_is_pristine(PyThreadState *t) {
    int clean = t->dict == NULL && t->context == NULL && t->async_exc == NULL && t->c_tracefunc == NULL
                && t->c_profilefunc == NULL && t->exc_info == &t->exc_state && t->exc_state.exc_value == NULL
                && t->async_gen_firstiter == NULL && t->async_gen_finalizer == NULL;
#if PY_VERSION_HEX >= 0x030C0000
    clean = clean && t->current_exception == NULL;
#else
    clean = clean && t->curexc_type == NULL;
#endif
#if PY_VERSION_HEX >= 0x030D0000
    clean = clean && t->threading_local_key == NULL;
#endif
    return clean;
}

/* A copy of the running goroutine's context for a new one, or NULL when it is empty (or, with an exception set, failed). */
PyObject *gort_copy_context(void) {
    PyThreadState *t = PyThreadState_Get();
    return t->context == NULL ? NULL : PyContext_CopyCurrent();
}

/* Installs (steals) or, with NULL, drops the context of the running goroutine. */
void gort_set_context(PyObject *context) {
    PyThreadState *t = PyThreadState_Get();
    PyObject *old = t->context;
    if (old == context)
        return;
    t->context = context;
    t->context_ver++;
    Py_XDECREF(old);
}

/* The context of a state's goroutine, borrowed, or NULL. */
PyObject *gort_context_of(PyThreadState *t) { return t->context; }

Py_ssize_t gort_count_threads(void) {
    Py_ssize_t n = 0;
    for (PyThreadState *t = PyInterpreterState_ThreadHead(PyInterpreterState_Get()); t != NULL; t = PyThreadState_Next(t))
        n++;
    return n;
}

/* Tells `see` of every state of the interpreter, and who its thread is. GIL held. */
void gort_each_state(void (*see)(void *arg, PyThreadState *t, unsigned long identity), void *arg) {
    for (PyThreadState *t = PyInterpreterState_ThreadHead(PyInterpreterState_Get()); t != NULL; t = PyThreadState_Next(t))
        see(arg, t, t->thread_id);
}

/* The state of a plain thread of this id of the kernel's, or NULL. GIL held. */
PyThreadState *gort_state_of_tid(unsigned long tid) {
    PyThreadState *t = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    while (t != NULL && (t->native_thread_id != tid || t->thread_id == (unsigned long)(uintptr_t)t))
        t = PyThreadState_Next(t);
    return t;
}

/* Normalised exception in flight, taken over; NULL when there is none. */
PyObject *gort_take_exception(void) {
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type == NULL)
        return NULL;
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

/* Raises `value` (stolen) with the traceback it carries. */
void gort_raise(PyObject *value) {
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(value);
#else
    PyObject *type = Py_NewRef((PyObject *)Py_TYPE(value));
    PyErr_Restore(type, value, PyException_GetTraceback(value));
#endif
}
