/* What a goroutine owns of the interpreter, field by field: the only code that knows struct _ts.
 *
 * Compiled once per CPython minor version against that version's own headers, so that offsets are always theirs.
 * Sources: CPython 3.11 to 3.15, Include/cpython/pystate.h, Python/pystate.c (push_chunk, clear_datastack,
 * tstate_activate), Python/ceval_gil.c. For 3.11 and 3.12 the runtime structure is read too; both are frozen releases. */
#define PY_SSIZE_T_CLEAN
#include <patchlevel.h>
#if PY_VERSION_HEX < 0x030D0000
#define Py_BUILD_CORE 1
#endif
#include <Python.h>
#if PY_VERSION_HEX < 0x030D0000
#include <internal/pycore_runtime.h>
#include <internal/pycore_interp.h>
#endif
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

/* Bytes of a goroutine's first data-stack chunk: about eight small frames. Deeper code goes on in CPython's own 16 KiB. */
#define ROOT_CHUNK_BYTES 1024

static PyThreadState *main_state;

void gort_set_main(PyThreadState *t) { main_state = t; }

/* C recursion a stack of `bytes` can hold: one level is taken as 1 KiB, with 32 KiB kept for the deepest C function. */
static int c_levels(size_t bytes) {
    size_t usable = bytes > 65536 ? bytes - 32768 : bytes / 2;
    return (int)(usable / 1024);
}

PyThreadState *gort_new_thread(uintptr_t base, uintptr_t top) {
    PyThreadState *t = PyThreadState_New(PyInterpreterState_Get());
    if (t == NULL) {
        PyErr_Clear();
        return NULL;
    }
    if (top != 0) {
        /* Never page-aligned: at finalisation CPython hands it to munmap, which must refuse it. */
        _PyStackChunk *chunk = malloc(ROOT_CHUNK_BYTES);
        if (chunk != NULL && ((uintptr_t)chunk & 4095) == 0) {
            _PyStackChunk *other = malloc(ROOT_CHUNK_BYTES);
            free(chunk);
            chunk = ((uintptr_t)other & 4095) == 0 ? NULL : other;
        }
        if (chunk != NULL) {
            chunk->previous = NULL;
            chunk->size = ROOT_CHUNK_BYTES;
            chunk->top = 0;
            t->datastack_chunk = chunk;
            t->datastack_top = &chunk->data[1];
            t->datastack_limit = (PyObject **)((char *)chunk + ROOT_CHUNK_BYTES);
        }
    }
#if PY_VERSION_HEX >= 0x030E0000
    if (top != 0) {
        static int (*protect)(PyThreadState *, void *, size_t);
        static int looked;
        if (!looked) {
            *(void **)&protect = dlsym(RTLD_DEFAULT, "PyUnstable_ThreadState_SetStackProtection");
            looked = 1;
        }
        if (protect != NULL && protect(t, (void *)base, top - base) < 0)
            PyErr_Clear();
    }
#elif PY_VERSION_HEX >= 0x030C0000
    if (top != 0 && t->c_recursion_remaining > c_levels(top - base))
        t->c_recursion_remaining = c_levels(top - base);
#endif
    (void)base;
    (void)c_levels;
    return t;
}

/* Takes our chunk out, so that CPython does not unmap it. */
static void drop_root_chunk(PyThreadState *t) {
    _PyStackChunk *chunk = t->datastack_chunk;
    if (chunk != NULL && chunk->previous == NULL && chunk->size == ROOT_CHUNK_BYTES) {
        t->datastack_chunk = NULL;
        t->datastack_top = NULL;
        t->datastack_limit = NULL;
        free(chunk);
    }
}

void gort_delete_thread(PyThreadState *t) {
    drop_root_chunk(t);
    PyThreadState_Delete(t);
}

void gort_switch(PyThreadState *to) {
    PyThreadState *from = PyThreadState_Swap(to);
#if PY_VERSION_HEX < 0x030C0000
    /* PyGILState_Ensure looks here; Swap of 3.11 does not move it. */
    PyThread_tss_set(&_PyRuntime.gilstate.autoTSSkey, to);
#endif
#if PY_VERSION_HEX < 0x030D0000
    /* Signals belong to the main goroutine: while another runs on this thread nobody is the main thread. */
    if (to == main_state)
        _PyRuntime.main_thread = PyThread_get_thread_ident();
    else if (from == main_state)
        _PyRuntime.main_thread = 0;
#endif
    (void)from;
}

void gort_attach(PyThreadState *t) {
    PyEval_RestoreThread(t);
#if PY_VERSION_HEX < 0x030C0000
    PyThread_tss_set(&_PyRuntime.gilstate.autoTSSkey, t);
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

int gort_signals_pending(void) {
#if PY_VERSION_HEX >= 0x030D0000
    /* Bit 1 of eval_breaker: _PY_SIGNALS_PENDING_BIT, pycore_ceval.h of 3.13 to 3.15. */
    return main_state != NULL && (*(volatile uintptr_t *)&main_state->eval_breaker & 2) != 0;
#else
    return main_state != NULL && _Py_atomic_load_relaxed(&_PyRuntime.ceval.signals_pending) != 0;
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

Py_ssize_t gort_count_threads(void) {
    Py_ssize_t n = 0;
    for (PyThreadState *t = PyInterpreterState_ThreadHead(PyInterpreterState_Get()); t != NULL; t = PyThreadState_Next(t))
        n++;
    return n;
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
