/* Asks a goroutine that computes to come to its next safe point: the evaluator calls us there, on the goroutine's stack.
 *
 * From 3.12 on by local events of sys.monitoring for the code it is in, on 3.11 by the trace function of its state. Both
 * are set by another thread, which has the GIL while the goroutine waits for it, and taken away by the first event: code
 * that nobody waits for runs as if we were not there. Source: CPython 3.11 Python/ceval.c (call_trace), 3.12 to 3.15
 * Python/instrumentation.c. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Lets others run. */
static void (*preempted)(void);

/* The name of an attribute that is looked for again and again, made once: the interpreter's cache of types keeps each string that it
 * was asked with, in a place by its address, and so up to 4,096 of them, each of which may keep an arena of a MiB. NULL: an exception
 * is set. */
static PyObject *kept_name(PyObject **place, const char *name) {
    if (*place == NULL)
        *place = PyUnicode_InternFromString(name);
    return *place;
}

void gort_when_interrupted(void (*let_others_run)(void)) { preempted = let_others_run; }

/* The running goroutine gets this exception where the evaluator looks for such next. */
void gort_raise_soon(PyObject *exception) {
    PyThreadState_SetAsyncExc(PyThreadState_Get()->thread_id, exception);
}

/* Whether that is still to come; with `take` it does not. */
int gort_is_raised_soon(PyObject *exception, int take) {
    PyThreadState *t = PyThreadState_Get();
    if (t->async_exc != exception)
        return 0;
    if (take) {
        t->async_exc = NULL;
        Py_DECREF(exception);
    }
    return 1;
}

#if PY_VERSION_HEX < 0x030C0000
#define PREVIOUS "gort.previous_trace"

/* What was there before: the trace function, its object, and what the innermost frame told of single instructions. Owned
 * by a capsule, which is the object of ours. */
typedef struct {
    Py_tracefunc function;
    PyObject *object, *frame, *opcodes;
} Previous;

static PyObject *trace_opcodes;

/* The innermost frame's next instruction is an event: a loop of one instruction has no line events. */
static void watch_instructions(Previous *previous, PyThreadState *t) {
    previous->frame = (PyObject *)PyThreadState_GetFrame(t);
    PyObject *name = kept_name(&trace_opcodes, "f_trace_opcodes");
    previous->opcodes = previous->frame == NULL || name == NULL ? NULL : PyObject_GetAttr(previous->frame, name);
    if (previous->opcodes != NULL)
        PyObject_SetAttr(previous->frame, name, Py_True);
    PyErr_Clear();
}

/* Returns whether whoever traces has asked for events of single instructions. */
static int watch_no_instructions(Previous *previous) {
    int asked = previous->opcodes == Py_True;
    if (previous->opcodes != NULL) {
        PyObject *type, *value, *traceback; /* an event may come with an exception in flight */
        PyErr_Fetch(&type, &value, &traceback);
        PyObject_SetAttr(previous->frame, trace_opcodes, previous->opcodes);
        PyErr_Restore(type, value, traceback);
    }
    Py_CLEAR(previous->opcodes);
    Py_CLEAR(previous->frame);
    return asked;
}

static void drop_previous(PyObject *capsule) {
    Previous *previous = PyCapsule_GetPointer(capsule, PREVIOUS);
    watch_no_instructions(previous);
    Py_XDECREF(previous->object);
    PyMem_Free(previous);
}

static int on_event(PyObject *capsule, PyFrameObject *frame, int what, PyObject *argument) {
    PyThreadState *t = PyThreadState_Get();
    Previous *previous = PyCapsule_GetPointer(capsule, PREVIOUS);
    t->c_tracefunc = previous->function;
    t->c_traceobj = Py_XNewRef(previous->object);
    int is_for_it = watch_no_instructions(previous) || what != PyTrace_OPCODE;
    int result = 0;
    if (previous->function != NULL && is_for_it)
        result = previous->function(previous->object, frame, what, argument);
    Py_DECREF(capsule); /* the state's reference */
    if (result >= 0)
        preempted();
    return result;
}

static int set_trace(PyThreadState *t) {
    Previous *previous = PyMem_Malloc(sizeof(*previous));
    if (previous == NULL)
        return 0;
    *previous = (Previous){t->c_tracefunc, t->c_traceobj, NULL, NULL};
    PyObject *capsule = PyCapsule_New(previous, PREVIOUS, drop_previous);
    if (capsule == NULL) {
        PyErr_Clear();
        PyMem_Free(previous);
        return 0;
    }
    watch_instructions(previous, t);
    t->c_tracefunc = on_event;
    t->c_traceobj = capsule;
    if (t->tracing <= 0)
        t->cframe->use_tracing = 255;
    return 1;
}

/* Whether the goroutine of the state will come to a safe point. The GIL is held. */
int gort_interrupt(PyThreadState *t) {
    if (t->c_tracefunc == on_event)
        return 1;
    int collects = PyGC_Disable(); /* a frame object is allocated: finalizers must not run here */
    int done = set_trace(t);
    if (collects)
        PyGC_Enable();
    return done;
}

#else
/* Frames whose code is watched: what it calls and returns to soon. */
#define MOST_CODES 8
static PyObject *codes[MOST_CODES];
static int code_count;
static PyObject *monitoring; /* sys.monitoring */
static int tool = -1, events;

static PyObject *on_event(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
static PyMethodDef on_event_method = {"preempt", (PyCFunction)(void (*)(void))on_event, METH_FASTCALL, NULL};

static long number_of(PyObject *object, const char *name) {
    PyObject *value = PyObject_GetAttrString(object, name);
    long number = value == NULL ? -1 : PyLong_AsLong(value);
    Py_XDECREF(value);
    return number;
}

/* Takes a tool id that nobody has; those without a meaning of their own first. */
static int take_tool(void) {
    static const int ids[] = {4, 3, 5, 2, 1, 0};
    for (unsigned i = 0; i < sizeof ids / sizeof *ids; i++) {
        PyObject *owner = PyObject_CallMethod(monitoring, "get_tool", "i", ids[i]);
        int is_free = owner == Py_None;
        Py_XDECREF(owner);
        if (!is_free)
            continue;
        PyObject *taken = PyObject_CallMethod(monitoring, "use_tool_id", "is", ids[i], "gort");
        Py_XDECREF(taken);
        return taken == NULL ? -1 : ids[i];
    }
    return -1;
}

static int begin(void) {
    static const char *const names[] = {"JUMP", "PY_START", "PY_RESUME", "PY_RETURN"};
    monitoring = Py_XNewRef(PySys_GetObject("monitoring"));
    PyObject *known = monitoring == NULL ? NULL : PyObject_GetAttrString(monitoring, "events");
    PyObject *callback = PyCFunction_New(&on_event_method, NULL);
    int id = known == NULL || callback == NULL ? -1 : take_tool();
    for (unsigned i = 0; id >= 0 && i < sizeof names / sizeof *names; i++) {
        long event = number_of(known, names[i]);
        PyObject *old = event < 0 ? NULL : PyObject_CallMethod(monitoring, "register_callback", "ilO", id, event, callback);
        if (old == NULL)
            id = -1;
        else
            events |= (int)event;
        Py_XDECREF(old);
    }
    Py_XDECREF(callback);
    Py_XDECREF(known);
    PyErr_Clear();
    tool = id;
    return id >= 0;
}

static int watch(PyObject *code, int which) {
    static PyObject *set_local_events;
    PyObject *name = kept_name(&set_local_events, "set_local_events");
    PyObject *id = PyLong_FromLong(tool), *set = PyLong_FromLong(which); /* which may be too large for a kept one */
    PyObject *arguments[] = {monitoring, id, code, set};
    PyObject *done =
        name == NULL || id == NULL || set == NULL ? NULL : PyObject_VectorcallMethod(name, arguments, 4, NULL);
    Py_XDECREF(id);
    Py_XDECREF(set);
    Py_XDECREF(done);
    if (done == NULL)
        PyErr_Clear(); /* somebody took our id away */
    return done != NULL;
}

static void watch_nothing(void) {
    while (code_count > 0) {
        PyObject *code = codes[--code_count];
        watch(code, 0);
        Py_DECREF(code);
    }
}

static PyObject *on_event(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module, (void)arguments, (void)count;
    watch_nothing();
    preempted();
    Py_RETURN_NONE;
}

int gort_interrupt(PyThreadState *t) {
    static int begun;
    if (!begun) {
        begun = 1;
        begin();
    }
    if (tool < 0)
        return 0;
    watch_nothing();
    PyFrameObject *frame = PyThreadState_GetFrame(t);
    while (frame != NULL && code_count < MOST_CODES) {
        PyObject *code = (PyObject *)PyFrame_GetCode(frame);
        if (watch(code, events))
            codes[code_count++] = code;
        else
            Py_DECREF(code);
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = back;
    }
    Py_XDECREF(frame);
    PyErr_Clear(); /* no memory for a frame's object: what was found before it is watched */
    return code_count > 0;
}
#endif
