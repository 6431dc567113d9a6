/* What the collector and chains of deallocations ask of CPython beyond its public functions.
 *
 * Sources: CPython 3.11 to 3.15, Python/gc.c (Modules/gcmodule.c until 3.12), Include/cpython/object.h (the trashcan). */
#define PY_SSIZE_T_CLEAN
#include <patchlevel.h>
#if PY_VERSION_HEX < 0x030C0000
#define Py_BUILD_CORE 1
#endif
#include <Python.h>
#if PY_VERSION_HEX < 0x030C0000
#include <internal/pycore_gc.h>
#include <internal/pycore_interp.h>
#endif

#if PY_VERSION_HEX >= 0x030C0000
static int count_one(PyObject *object, void *count) {
    (void)object;
    ++*(Py_ssize_t *)count;
    return 1; /* go on */
}
#endif

/* How many objects the collector looks at. Allocates nothing: it is called at the end of passes. */
Py_ssize_t gort_count_tracked(void) {
    Py_ssize_t count = 0;
#if PY_VERSION_HEX >= 0x030C0000
    PyUnstable_GC_VisitObjects(count_one, &count);
#else
    struct _gc_runtime_state *state = &PyInterpreterState_Get()->gc;
    for (int i = 0; i < NUM_GENERATIONS; i++) {
        PyGC_Head *head = &state->generations[i].head;
        for (PyGC_Head *at = _PyGCHead_NEXT(head); at != head; at = _PyGCHead_NEXT(at))
            count++;
    }
#endif
    return count;
}

/* Has `inner` deallocate `object`, untracked, whose type's tp_dealloc is `outer`: at once, or later where it is deep in a chain
 * of such deallocations, which would use up the stack. 3.14 and newer look after that before they call tp_dealloc. */
void gort_dealloc_in_turn(PyObject *object, destructor outer, void (*inner)(PyObject *)) {
#if PY_VERSION_HEX >= 0x030E0000
    (void)outer;
    inner(object);
#else
    Py_TRASHCAN_BEGIN(object, outer)
    inner(object);
    Py_TRASHCAN_END
#endif
}
