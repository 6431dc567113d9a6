/* Trace and profile functions that a new thread would begin with, for new goroutines, and memray's for those that go on.
 *
 * `threading` gives them to each thread it starts (threading.settrace, threading.setprofile); coverage and debuggers count
 * on that. A goroutine takes them from the same place, `_trace_hook` and `_profile_hook` of the module. Nothing is looked
 * up while nothing there has changed: sys.modules and the module's names are watched, on 3.11 by their version tags.
 * The GIL is held everywhere here. */
#define _GNU_SOURCE /* dladdr, syscall */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

PyObject *gort_take_exception(void);
void gort_raise(PyObject *value);
void gort_begin_tools(void);
void gort_renew_profile(PyThreadState *t);
int gort_is_main(PyThreadState *t);

static PyObject *trace_hook, *profile_hook; /* owned; NULL when there is none */
static int profile_is_memrays;

#if PY_VERSION_HEX < 0x030C0000
static uint64_t modules_version, names_version;
static PyObject *names; /* borrowed from the module, which sys.modules keeps; read only while its version is the one seen */

static int has_changed(void) {
    if (((PyDictObject *)PyImport_GetModuleDict())->ma_version_tag != modules_version)
        return 1;
    return names != NULL && ((PyDictObject *)names)->ma_version_tag != names_version;
}

static void watch(PyObject *modules, PyObject *module_names) {
    modules_version = ((PyDictObject *)modules)->ma_version_tag;
    names = module_names;
    names_version = names == NULL ? 0 : ((PyDictObject *)names)->ma_version_tag;
}
#else
static int changed = 1;

/* Called before the change is made: nobody looks until it is. */
static int on_change(PyDict_WatchEvent event, PyObject *dict, PyObject *key, PyObject *value) {
    (void)event, (void)dict, (void)key, (void)value;
    changed = 1;
    return 0;
}

static int has_changed(void) { return changed; }

static void watch(PyObject *modules, PyObject *module_names) {
    static int watcher = -1;
    if (watcher < 0)
        watcher = PyDict_AddWatcher(on_change);
    /* Without one of the interpreter's eight watchers each start of a goroutine looks. */
    changed = watcher < 0 || PyDict_Watch(watcher, modules) < 0
              || (module_names != NULL && PyDict_Watch(watcher, module_names) < 0);
    PyErr_Clear();
}
#endif

static void look_up(PyObject **hook, PyObject *module_names, const char *name) {
    PyObject *found = module_names == NULL ? NULL : PyDict_GetItemString(module_names, name);
    PyObject *old = *hook;
    *hook = found == Py_None ? NULL : Py_XNewRef(found);
    Py_XDECREF(old); /* last: it may run code */
}

static int is_from_memray(PyObject *hook) {
    PyObject *name = hook == NULL ? NULL : PyObject_GetAttrString(hook, "__module__");
    int is = name != NULL && PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, "memray._memray") == 0;
    Py_XDECREF(name);
    PyErr_Clear();
    return is;
}

static void look(void) {
    PyObject *modules = PyImport_GetModuleDict();
    PyObject *module = PyDict_GetItemString(modules, "threading");
    PyObject *module_names = module != NULL && PyModule_Check(module) ? PyModule_GetDict(module) : NULL;
    watch(modules, module_names);
    look_up(&trace_hook, module_names, "_trace_hook");
    look_up(&profile_hook, module_names, "_profile_hook");
    profile_is_memrays = is_from_memray(profile_hook);
}

/* memray keeps a copy of the Python stack per OS thread, of frames it does not own, by the calls and returns it is told of:
 * with goroutines in turn it would pop one's frames for another's and look at frames that are gone. When its function
 * is installed on a state it takes that state's whole stack instead, so each state that goes on gets it anew. */
static int is_memrays(Py_tracefunc function) {
    static Py_tracefunc known, other;
    if (function == NULL || function == other)
        return 0;
    if (function == known)
        return 1;
    Dl_info info;
    int is = dladdr((void *)(uintptr_t)function, &info) && info.dli_fname != NULL && strstr(info.dli_fname, "/_memray.");
    *(is ? &known : &other) = function;
    return is;
}

/* The number under which memray records a state on the calling OS thread; 0: the one it has. One per goroutine and thread:
 * what a thread still has to pop of a goroutine that went on elsewhere concerns nobody. `kept` is the main goroutine's on
 * the main thread, whose outermost frames memray leaves out of its reports; 0 as long as no other was set there. */
static unsigned long long number_here(PyThreadState *t, unsigned long long kept, int on_main_thread) {
    if (on_main_thread && gort_is_main(t))
        return kept;
    return (unsigned long long)t->id << 32 | (unsigned long long)syscall(SYS_gettid);
}

/* A new types.SimpleNamespace, or NULL. */
static PyObject *new_namespace(void) {
    PyObject *types = PyImport_ImportModule("types");
    PyObject *made = types == NULL ? NULL : PyObject_CallMethod(types, "SimpleNamespace", NULL);
    Py_XDECREF(types);
    return made;
}

/* Tells memray of a switch between greenlets: it empties the thread's stack under the number it had, and takes that of `t`
 * under its own. Returns -1 with an exception set. */
static int tell_memray(PyThreadState *t) {
    static PyObject *from, *to;
    static unsigned long long main_number;
    PyObject *module = PyDict_GetItemString(PyImport_GetModuleDict(), "memray._memray");
    if (module == NULL || !PyObject_HasAttrString(module, "greenlet_trace_function"))
        return 0; /* another version: all goroutines of a thread are one to it */
    int on_main_thread = syscall(SYS_gettid) == getpid();
    unsigned long long number = number_here(t, main_number, on_main_thread);
    if (number == 0)
        return 0;
    if ((from == NULL && (from = new_namespace()) == NULL) || (to == NULL && (to = new_namespace()) == NULL))
        return -1;
    PyObject *value = PyLong_FromUnsignedLongLong(number);
    int failed = value == NULL || PyObject_SetAttrString(to, "_memray_tid", value) < 0;
    Py_XDECREF(value);
    PyObject *done = failed ? NULL : PyObject_CallMethod(module, "greenlet_trace_function", "s(OO)", "switch", from, to);
    if (done == NULL)
        return -1;
    Py_DECREF(done);
    if (on_main_thread && main_number == 0 && (value = PyObject_GetAttrString(from, "_memray_tid")) != NULL) {
        main_number = PyLong_AsUnsignedLongLong(value);
        Py_DECREF(value);
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* Where memray's function is installed, memray writes the end of what its copy of this thread's stack held without its lock,
 * while other threads, which allocate without the GIL, write too: the process crashes. For a thread that begins there is
 * nothing to write. Here there may be, so it is let go first, by an allocation: memray notes that under its lock, and drops
 * a stack whose state it does not follow. Source: memray 1.20, tracking_api.cpp, install_trace_function, populateShadowStack,
 * emitPendingPushesAndPops. */
static void empty_memrays_stack(void) {
    void *volatile nothing = malloc(0); /* volatile: the pair must not be left out */
    free(nothing);
}

/* The first event on a state since it goes on, on the goroutine's own stack: `hook` is memray's threading.setprofile
 * function, which installs memray's own where this one is. */
static int on_first_event(PyObject *hook, PyFrameObject *frame, int what, PyObject *argument) {
    (void)argument;
    if (what == PyTrace_RETURN)
        return 0; /* it would hold the frame that ends, and not be told of its end */
    PyThreadState *t = PyThreadState_Get();
    PyObject *exception = PyErr_Occurred() ? gort_take_exception() : NULL;
    Py_INCREF(hook); /* the state's reference goes meanwhile */
    empty_memrays_stack();
    PyObject *done = PyObject_CallFunction(hook, "OsO", (PyObject *)frame, "call", Py_None);
    Py_XDECREF(done);
    if (done == NULL || (is_memrays(t->c_profilefunc) && tell_memray(t) < 0))
        PyErr_WriteUnraisable(hook);
    Py_DECREF(hook);
    if (t->c_profilefunc == on_first_event)
        PyEval_SetProfile(NULL, NULL); /* it tracks no more */
    if (exception != NULL)
        gort_raise(exception);
    return 0;
}

/* The state `t`, which has a profile function, becomes current. On any stack: runs no Python code. */
void gort_renew_profile(PyThreadState *t) {
    if (!is_memrays(t->c_profilefunc))
        return;
    if (has_changed())
        look();
    if (!profile_is_memrays)
        return;
    PyObject *old = t->c_profileobj;
    t->c_profilefunc = on_first_event; /* one for another: what the interpreter counts stays right */
    t->c_profileobj = Py_NewRef(profile_hook);
    Py_XDECREF(old); /* memray's is NULL or a number */
}

static void set(const char *function, PyObject *hook) {
    PyObject *setter = PySys_GetObject(function);
    PyObject *done = setter == NULL ? NULL : PyObject_CallOneArg(setter, hook);
    if (done == NULL)
        PyErr_WriteUnraisable(hook);
    Py_XDECREF(done);
}

/* The running goroutine begins. On its stack. */
void gort_begin_tools(void) {
    if (has_changed())
        look();
    if (trace_hook != NULL)
        set("settrace", trace_hook);
    if (profile_is_memrays)
        PyEval_SetProfile(on_first_event, profile_hook);
    else if (profile_hook != NULL)
        set("setprofile", profile_hook);
}
