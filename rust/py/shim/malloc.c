/* Which interpreter asks for memory, and whose functions serve it now.
 *
 * From 3.12 on an interpreter may have a GIL of its own, and the functions that serve memory are all interpreters'.
 * Sources: CPython 3.11 to 3.15, Objects/obmalloc.c (debug_alloc_api_t), Python/tracemalloc.c (the hooks' ctx),
 * Include/internal/pycore_debug_offsets.h (for 3.12 the runtime structure itself, as that release is frozen). */
#define PY_SSIZE_T_CLEAN
#include <patchlevel.h>
#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030D0000
#define Py_BUILD_CORE 1
#endif
#include <Python.h>
#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030D0000
#include <internal/pycore_runtime.h>
#endif
#include <stdint.h>
#include <string.h>

#if PY_VERSION_HEX >= 0x030D0000
/* What the head of the runtime structure says to debuggers, as far as it is read here. */
typedef struct {
    char cookie[8];
    uint64_t version;
    uint64_t free_threaded;
    uint64_t size;
    uint64_t finalizing;
    uint64_t interpreters_head;
} offsets_t;

extern char _PyRuntime[];
#endif

/* Where the newest interpreter stands: as long as that is the main one, it is the only one. */
PyInterpreterState **gort_newest_interpreter(void) {
    static PyInterpreterState *unknown; /* NULL is not the main one: then each caller is looked at */
#if PY_VERSION_HEX >= 0x030D0000
    const offsets_t *offsets = (const offsets_t *)_PyRuntime;
    if (memcmp(offsets->cookie, "xdebugpy", sizeof offsets->cookie) != 0 ||
        offsets->interpreters_head > offsets->size - sizeof(void *))
        return &unknown;
    PyInterpreterState **word = (PyInterpreterState **)(_PyRuntime + offsets->interpreters_head);
    return *word == PyInterpreterState_Head() ? word : &unknown;
#elif PY_VERSION_HEX >= 0x030C0000
    return &_PyRuntime.interpreters.head;
#else
    unknown = PyInterpreterState_Main(); /* one GIL for all */
    return &unknown;
#endif
}

/* Whether the calling thread has the GIL of the main interpreter, if it has one. */
int gort_in_main_interpreter(void) {
#if PY_VERSION_HEX >= 0x030D0000
    PyThreadState *state = PyThreadState_GetUnchecked();
#else
    PyThreadState *state = _PyThreadState_UncheckedGet();
#endif
    return state != NULL && state->interp == PyInterpreterState_Main();
}

/* What lies beneath the hooks that `allocator`, of a domain whose debug hooks have this `id`, belongs to: NULL where it is
 * no hook, (void *)-1 where it is nobody's known. CPython's own functions have no ctx. `is_tracing`: it may be tracemalloc's. */
PyMemAllocatorEx *gort_beneath(PyMemAllocatorEx *allocator, char id, int is_tracing) {
    if (allocator->ctx == NULL)
        return NULL;
    struct debug_api {
        char id;
        PyMemAllocatorEx alloc;
    } *debug = allocator->ctx;
    /* A static structure: what pads the id is zero, so no pointer of another hook looks like it. */
    uintptr_t first;
    memcpy(&first, debug, sizeof first);
    if (first == (uintptr_t)id)
        return &debug->alloc;
    if (is_tracing)
        return allocator->ctx;
    return (PyMemAllocatorEx *)-1;
}
