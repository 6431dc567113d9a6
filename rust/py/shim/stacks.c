/* Which references a parked goroutine's Python frames own, and who calls: the only code that knows struct _PyInterpreterFrame.
 *
 * For the leak report (src/leak): an object all of whose counts are accounted for is held by nobody else. Whatever cannot
 * be told exactly is not said: then somebody unknown seems to hold the object. Sources: CPython 3.11 to 3.15,
 * Include/internal/pycore_frame.h, pycore_interpframe_structs.h, pycore_stackref.h, Objects/genobject.c (gen_traverse),
 * Python/ceval.c and bytecodes.c. The GIL is held, nothing here runs Python code or changes a count. */
#define PY_SSIZE_T_CLEAN
#define Py_BUILD_CORE 1
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter" /* of CPython's own headers */
#include <Python.h>
#include <internal/pycore_frame.h>
#if PY_VERSION_HEX >= 0x030E0000
#include <internal/pycore_interpframe.h>
#include <internal/pycore_interpframe_structs.h>
#include <internal/pycore_stackref.h>
#else
#include <internal/pycore_code.h>
#endif
#if PY_VERSION_HEX < 0x030C0000
#include <internal/pycore_pystate.h>
#endif
#pragma GCC diagnostic pop

typedef struct _PyInterpreterFrame Frame;

/* What `see` is told; as in src/leak/stack.rs. */
enum {
    OWNED = 0,   /* one count of it is the goroutine's */
    WINDOW = 1,  /* whoever has it can read a frame of the goroutine: no count */
    MANAGER = 2, /* the `with` statement in progress has bound its __enter__ and __exit__: an address, maybe of nothing */
    UNSURE = 3,  /* one count of the object at this address is the goroutine's, if there is one */
};
typedef void (*See)(void *arg, int what, PyObject *object);

/* How many slots of the value stack are owned at this instruction, from the bottom, and what else is known of it; -1:
 * nobody knows. */
typedef int (*Depth)(void *arg, PyObject *code, int offset);
#define IN_WITH (1 << 30)     /* __enter__ is being called: of what is, or was, in the next slot */
#define HAS_COPIES (1 << 29)  /* a call with * and **: function, tuple and dict are the last of the slots */

static void see_one(See see, void *arg, PyObject *object) {
    if (object != NULL)
        see(arg, OWNED, object);
}

/* A call with keywords lays its arguments out in an array that owns a count of each, since 3.15 of those by keyword only:
 * `_PyStack_UnpackDict` of Objects/call.c, which `_PyVectorcall_Call` frees after the call. */
static void see_copies(PyObject *function, PyObject *args, PyObject *kwargs, See see, void *arg) {
    if (function == NULL || args == NULL || kwargs == NULL || !PyTuple_CheckExact(args) || !PyDict_CheckExact(kwargs)
        || PyDict_Size(kwargs) == 0 || PyVectorcall_Function(function) == NULL)
        return;
    for (Py_ssize_t i = 0; PY_VERSION_HEX < 0x030F0000 && i < PyTuple_GET_SIZE(args); i++)
        see(arg, OWNED, PyTuple_GET_ITEM(args, i));
    PyObject *key, *value;
    for (Py_ssize_t i = 0; PyDict_Next(kwargs, &i, &key, &value);)
        see(arg, OWNED, value);
}

/* The generator whose frame this is. */
static PyObject *generator_of(Frame *frame) {
    return (PyObject *)((char *)frame - offsetof(PyGenObject, gi_iframe));
}

/* What is on a value stack whose pointer is in a register is found from the code alone: while a finaliser runs in the middle
 * of an instruction, some of it may be gone already. So it is not looked at here. */
static inline void see_slot(See see, void *arg, PyObject *object) {
    if (object != NULL)
        see(arg, UNSURE, object);
}

#if PY_VERSION_HEX >= 0x030E0000
/* One with the tag is borrowed from somebody who keeps it, or a number. */
static int is_owned(_PyStackRef ref) { return !PyStackRef_IsNull(ref) && (ref.bits & 3) == 0; }

static int is_borrowed(_PyStackRef ref) {
    return !PyStackRef_IsNull(ref) && (ref.bits & 3) == Py_TAG_REFCNT && (ref.bits & ~(uintptr_t)3) != 0;
}

static void see_frame(Frame *frame, Frame *callee, Depth depth, See see, void *arg) {
    (void)depth, (void)callee, (void)see_slot;
    if (frame->owner == FRAME_OWNED_BY_GENERATOR) {
        see(arg, WINDOW, generator_of(frame)); /* which says itself what it owns */
        return;
    }
    if (is_owned(frame->f_executable))
        see(arg, OWNED, PyStackRef_AsPyObjectBorrow(frame->f_executable));
    if (is_owned(frame->f_funcobj))
        see(arg, OWNED, PyStackRef_AsPyObjectBorrow(frame->f_funcobj));
    see_one(see, arg, frame->f_locals);
    see_one(see, arg, (PyObject *)frame->frame_obj);
    for (_PyStackRef *ref = frame->localsplus; ref < frame->stackpointer; ref++)
        if (is_owned(*ref))
            see(arg, OWNED, PyStackRef_AsPyObjectBorrow(*ref));
}

#define CODE_OF(frame) ((PyCodeObject *)PyStackRef_AsPyObjectBorrow((frame)->f_executable))
#define INSTRUCTION(frame) ((frame)->instr_ptr)
static int is_bottom(Frame *frame) { return frame->owner >= FRAME_OWNED_BY_INTERPRETER; }
static Frame *top_frame(PyThreadState *t) { return t->current_frame; }

/* What the collector's visit of a generator shows beside what it owns: references its frame only borrows. */
void gort_see_borrowed(PyObject *generator, See see, void *arg) {
    PyGenObject *gen = (PyGenObject *)generator;
    Frame *frame = &gen->gi_iframe;
    int has_frame = gen->gi_frame_state < FRAME_CLEARED;
    if (is_borrowed(frame->f_executable))
        see(arg, OWNED, PyStackRef_AsPyObjectBorrow(frame->f_executable));
    if (has_frame && is_borrowed(frame->f_funcobj))
        see(arg, OWNED, PyStackRef_AsPyObjectBorrow(frame->f_funcobj));
    for (_PyStackRef *ref = frame->localsplus; has_frame && ref < frame->stackpointer; ref++)
        if (is_borrowed(*ref))
            see(arg, OWNED, PyStackRef_AsPyObjectBorrow(*ref));
}
#else
#if PY_VERSION_HEX >= 0x030D0000
#define CODE_OF(frame) ((PyCodeObject *)(frame)->f_executable)
#define INSTRUCTION(frame) ((frame)->instr_ptr)
#else
#define CODE_OF(frame) ((frame)->f_code)
#define INSTRUCTION(frame) ((frame)->prev_instr)
#endif

/* The slots above the locals that are surely owned, while the frame's stack pointer is in a register. */
static void see_values(Frame *frame, Frame *callee, PyCodeObject *code, Depth depth, See see, void *arg) {
    int offset = (int)((char *)INSTRUCTION(frame) - (char *)_PyCode_CODE(code));
    int known = depth(arg, (PyObject *)code, offset);
    int in_with = known >= 0 && (known & IN_WITH) != 0;
    int has_copies = known >= 0 && (known & HAS_COPIES) != 0;
    known = known < 0 ? 0 : known & ~(IN_WITH | HAS_COPIES);
    if (known + in_with > code->co_stacksize)
        return;
    PyObject **stack = frame->localsplus + code->co_nlocalsplus;
    for (int i = 0; i < known; i++)
        see_slot(see, arg, stack[i]);
#if PY_VERSION_HEX < 0x030C0000
    /* Later versions make no call of such a function. With its frame above, the slots are as the call began. */
    if (has_copies && known >= 3 && callee != NULL && (PyObject *)callee->f_func == stack[known - 3])
        see_copies(stack[known - 3], stack[known - 2], stack[known - 1], see, arg);
#endif
    (void)has_copies, (void)callee;
    if (in_with) {
        PyObject *manager = stack[known];
#if PY_VERSION_HEX < 0x030C0000
        /* The bound __exit__ stands in its place already. */
        see_one(see, arg, manager);
        if (manager != NULL && PyCFunction_Check(manager))
            manager = PyCFunction_GET_SELF(manager);
        else if (manager != NULL && PyMethod_Check(manager))
            manager = PyMethod_GET_SELF(manager);
#endif
        if (manager != NULL)
            see(arg, MANAGER, manager);
    }
}

static void see_frame(Frame *frame, Frame *callee, Depth depth, See see, void *arg) {
    PyCodeObject *code = CODE_OF(frame);
    int of_generator = frame->owner == FRAME_OWNED_BY_GENERATOR;
    if (of_generator)
        see(arg, WINDOW, generator_of(frame));
    if (of_generator && frame->stacktop >= 0)
        return; /* the generator says itself what it owns */
    if (!of_generator) {
        see_one(see, arg, (PyObject *)code);
#if PY_VERSION_HEX >= 0x030C0000
        see_one(see, arg, frame->f_funcobj);
#else
        see_one(see, arg, (PyObject *)frame->f_func);
#endif
        see_one(see, arg, frame->f_locals);
        see_one(see, arg, (PyObject *)frame->frame_obj);
    }
    int top = frame->stacktop >= 0 ? frame->stacktop : code->co_nlocalsplus;
    for (int i = 0; i < top; i++)
        see_one(see, arg, frame->localsplus[i]);
    if (frame->stacktop < 0)
        see_values(frame, callee, code, depth, see, arg);
}

#if PY_VERSION_HEX >= 0x030D0000
static int is_bottom(Frame *frame) { return frame->owner == FRAME_OWNED_BY_CSTACK; }
static Frame *top_frame(PyThreadState *t) { return t->current_frame; }
#else
#if PY_VERSION_HEX >= 0x030C0000
static int is_bottom(Frame *frame) { return frame->owner == FRAME_OWNED_BY_CSTACK; }
#else
static int is_bottom(Frame *frame) { return (void)frame, 0; }
#endif
static Frame *top_frame(PyThreadState *t) { return t->cframe->current_frame; }
#endif

void gort_see_borrowed(PyObject *generator, See see, void *arg) { (void)generator, (void)see, (void)arg; }
#endif

/* Whether a file of this folder holds the code; also for code of no file, as the evaluator's own. */
static int is_below(PyCodeObject *code, const char *folder, Py_ssize_t bytes) {
    PyObject *file = code->co_filename;
    if (file == NULL || !PyUnicode_Check(file))
        return 1;
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(file, &size);
    if (text == NULL)
        PyErr_Clear();
    return folder != NULL && text != NULL && size > bytes && memcmp(text, folder, bytes) == 0;
}

/* The newest code of the calling thread that is not of `folder`, or of all of it the oldest, and how many bytes it is in; NULL: it
 * runs no Python code. Borrowed. */
PyObject *gort_caller(const char *folder, Py_ssize_t bytes, int *offset) {
    PyObject *caller = NULL;
    for (Frame *frame = top_frame(PyThreadState_Get()); frame != NULL; frame = frame->previous) {
        if (is_bottom(frame))
            continue;
        PyCodeObject *code = CODE_OF(frame);
        int is_inside = is_below(code, folder, bytes);
        if (caller != NULL && is_inside)
            continue;
        caller = (PyObject *)code;
        *offset = (int)((char *)INSTRUCTION(frame) - (char *)_PyCode_CODE(code));
        if (!is_inside)
            break;
    }
    return caller;
}

/* Tells `see` of each frame of a state that is off its processor, or the caller's, the newest first: its code, how many bytes it is
 * in, and the globals it runs with, all borrowed; until it says 0. */
void gort_walk_stack(PyThreadState *t, int (*see)(void *arg, PyObject *code, int offset, PyObject *globals), void *arg) {
    for (Frame *frame = top_frame(t); frame != NULL; frame = frame->previous) {
        if (is_bottom(frame) || _PyFrame_IsIncomplete(frame))
            continue;
        PyCodeObject *code = CODE_OF(frame);
        int offset = (int)((char *)INSTRUCTION(frame) - (char *)_PyCode_CODE(code));
        if (!see(arg, (PyObject *)code, offset < 0 ? 0 : offset, frame->f_globals))
            break;
    }
}

/* A stack that was looked at before, as the instructions of its frames, and its number; no words: none. As in src/sight.rs. */
struct known {
    const uint64_t *words;
    uint32_t count;
    uint32_t number;
};

/* For each frame of a state that is off its processor, or the caller's, the newest first, the instruction that it is at: as long as
 * their codes are alive no others have those. A hash of them as well. How many frames there are, at most `most`. */
int gort_places(PyThreadState *t, uint64_t *words, int most, uint64_t *hash) {
    int count = 0;
    uint64_t mixed = 0;
    for (Frame *frame = top_frame(t); frame != NULL && count < most; frame = frame->previous) {
        if (is_bottom(frame) || _PyFrame_IsIncomplete(frame))
            continue;
        uint64_t at = (uint64_t)(uintptr_t)INSTRUCTION(frame);
        words[count] = at;
        mixed = (mixed ^ at) * 0x9E3779B97F4A7C15u;
        mixed ^= mixed >> 32;
        count++;
    }
    *hash = mixed;
    return count;
}

/* Stacks that are found at once, while a trace is taken: by their two newest frames, so that the same function called from two places
 * has two. Touched with the GIL. */
#define RECENT_BITS 10
#define DEPTH 128 /* deeper frames are not told */
typedef uint32_t (*LookUp)(const void *session, PyThreadState *t, uint32_t place);
static const struct known *recent;
static LookUp look_up;

/* From here on they are in `table`, of 2^RECENT_BITS, or nowhere; `other` is asked for those that are not in their places. */
void gort_set_recent(const struct known *table, LookUp other) {
    recent = table;
    look_up = other;
}

/* The number of the calling thread's stack; 0: it runs no Python code, or it is not known. */
uint32_t gort_here(const void *session) {
#if PY_VERSION_HEX < 0x030C0000
    PyThreadState *t = _PyThreadState_GET(); /* a word that everybody can read */
#else
    PyThreadState *t = PyThreadState_Get();
#endif
    Frame *frame = top_frame(t);
    while (frame != NULL && is_bottom(frame))
        frame = frame->previous;
    if (frame == NULL)
        return 0;
    uint64_t mixed = (uint64_t)(uintptr_t)INSTRUCTION(frame);
    Frame *caller = frame->previous;
    if (caller != NULL && !is_bottom(caller))
        mixed += 3 * (uint64_t)(uintptr_t)INSTRUCTION(caller);
    uint32_t place = (uint32_t)((mixed * 0x9E3779B97F4A7C15u) >> (64 - RECENT_BITS));
    const struct known *known = recent == NULL ? NULL : &recent[place];
    if (known == NULL || known->words == NULL)
        return look_up(session, t, place);
    const uint64_t *word = known->words, *end = word + known->count;
    for (; frame != NULL; frame = frame->previous) {
        if (word != end && *word == (uint64_t)(uintptr_t)INSTRUCTION(frame)) {
            word++;
            continue;
        }
        if (is_bottom(frame) || _PyFrame_IsIncomplete(frame))
            continue;
        if (word == end && known->count == DEPTH)
            break;
        return look_up(session, t, place);
    }
    return word == end ? known->number : look_up(session, t, place);
}

/* Tells `see` what the frames and the state of a parked goroutine own, which began as the call function(*args, **kwargs). */
void gort_see_stack(PyThreadState *t, PyObject *call[3], Depth depth, See see, void *arg) {
    see_one(see, arg, t->context);
    see_one(see, arg, t->exc_state.exc_value);
    see_one(see, arg, t->dict);
    see_copies(call[0], call[1], call[2], see, arg);
    Frame *callee = NULL;
    for (Frame *frame = top_frame(t); frame != NULL; callee = frame, frame = frame->previous) {
        if (is_bottom(frame))
            continue;
        if (frame->frame_obj != NULL)
            see(arg, WINDOW, (PyObject *)frame->frame_obj);
        see_frame(frame, callee, depth, see, arg);
    }
}

/* Whether a trace function (sys.settrace) is called for this state's frames: a debugger's, as a rule. */
int gort_is_traced(PyThreadState *t) { return t->c_tracefunc != NULL; }

/* The object that `method` is bound to, if it is a bound __enter__ (*is_exit = 0) or __exit__ (1); else NULL. */
PyObject *gort_manager_of(PyObject *method, int *is_exit) {
    PyObject *self = NULL, *name = NULL;
    const char *text = NULL;
    if (PyCFunction_CheckExact(method)) {
        self = PyCFunction_GET_SELF(method);
        text = ((PyCFunctionObject *)method)->m_ml->ml_name;
    } else if (Py_IS_TYPE(method, &PyMethod_Type) && PyFunction_Check(PyMethod_GET_FUNCTION(method))) {
        self = PyMethod_GET_SELF(method);
        name = ((PyFunctionObject *)PyMethod_GET_FUNCTION(method))->func_name;
        text = PyUnicode_AsUTF8(name);
    }
    if (self == NULL || text == NULL)
        return NULL;
    *is_exit = strcmp(text, "__exit__") == 0;
    return *is_exit || strcmp(text, "__enter__") == 0 ? self : NULL;
}

/* Bound methods, of C and of Python. */
int gort_is_method_type(PyTypeObject *tp) { return tp == &PyCFunction_Type || tp == &PyMethod_Type; }

/* Weak references, their subclasses, and proxies. */
int gort_is_weak_type(PyTypeObject *tp) {
    return PyType_IsSubtype(tp, &_PyWeakref_RefType) || tp == &_PyWeakref_ProxyType
           || tp == &_PyWeakref_CallableProxyType;
}

/* The object a weak reference leads to, without a count, or NULL. */
PyObject *gort_weakly_held(PyObject *reference) {
    PyObject *object = ((PyWeakReference *)reference)->wr_object;
    return object == Py_None ? NULL : object;
}
