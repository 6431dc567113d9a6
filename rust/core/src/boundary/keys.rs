//! pthread keys per goroutine, for libraries that keep a thread's state in them (OpenSSL's error queue, first of all).
//!
//! The number of a key is the C library's; only where its value is kept differs. A goroutine that sets one has a table of
//! its own. The main goroutine has one too, because it may run on another thread for a while, and what it set before
//! there were hooks it still finds on its own thread. g0 and plain threads keep the C library's.

use super::caller::goroutines_machine;
use super::hooks::original;
use super::locals::{self, Locals};
use crate::goroutine::Goroutine;
use crate::primitive::atomic::Ordering;
use crate::primitive::boxes::try_box;
use libc::{c_int, c_void, pthread_key_t};
use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, MutexGuard};

/// More keys than any C library has (glibc: PTHREAD_KEYS_MAX is 1,024).
const KEYS: usize = 4096;

/// How often each key was deleted: a value set before that belongs to another key of the same number.
static DELETED: [AtomicU32; KEYS] = [const { AtomicU32::new(0) }; KEYS];

fn deletions(key: pthread_key_t) -> u32 {
    // Using a key while another thread deletes it is the caller's mistake, so nothing is ordered by it.
    DELETED.get(key as usize).map_or(0, |count| count.load(Ordering::Relaxed))
}

/// How often the destructors run when they set values anew. POSIX's least.
const ROUNDS: usize = 4;

type Destructor = unsafe extern "C" fn(*mut c_void);

/// Destructors of keys made since the hooks are in place.
static DESTRUCTORS: Mutex<Destructors> = Mutex::new(None);

/// Functions that end a thread's part of a library whose keys are older than the hooks (`OPENSSL_thread_stop`).
static THREAD_STOPS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

type Destructors = Option<HashMap<pthread_key_t, Destructor>>;

/// Both tables' locks, held over a fork.
pub(super) type Held = (MutexGuard<'static, Destructors>, MutexGuard<'static, Vec<usize>>);

pub(super) fn hold() -> Held {
    let destructors = DESTRUCTORS.lock().unwrap_or_else(|e| e.into_inner());
    (destructors, thread_stops())
}

/// A value that a goroutine has set.
struct Entry {
    key: pthread_key_t,
    /// `deletions` of the key when it was set.
    since: u32,
    value: *mut c_void,
}

impl Entry {
    fn is_of(&self, key: pthread_key_t) -> bool {
        self.key == key && self.since == deletions(key)
    }
}

/// What one goroutine has set; a handful of keys.
#[derive(Default)]
pub(super) struct Table {
    entries: Vec<Entry>,
    /// See there.
    pub(super) locals: Locals,
}

impl Table {
    fn find(&mut self, key: pthread_key_t) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.is_of(key))
    }
}

fn thread_stops() -> MutexGuard<'static, Vec<usize>> {
    THREAD_STOPS.lock().unwrap_or_else(|e| e.into_inner())
}

/// Makes room for what `add_thread_stop` is given next. `None`: memory is refused.
pub(super) fn make_room_for_thread_stop() -> Option<()> {
    thread_stops().try_reserve(1).ok()
}

/// Adds a function that is called at the end of each goroutine that has set a key. There is room for it.
pub(super) fn add_thread_stop(function: usize) {
    let mut all = thread_stops();
    if !all.contains(&function) {
        all.push(function);
    }
}

/// The goroutine that runs here, and whether it is the main one on its own thread.
pub(super) fn running() -> Option<(*mut Goroutine, bool)> {
    let m = goroutines_machine();
    // SAFETY: as `goroutines_machine` says.
    unsafe {
        if m.is_null() {
            return None;
        }
        let g = (*m).current;
        Some((g, is_main(g) && ptr::eq((*g).owner().cast(), m)))
    }
}

/// Whether a running goroutine is the main one.
pub(super) fn is_main(g: *mut Goroutine) -> bool {
    super::runtime().is_some_and(|rt| ptr::eq(g, rt.main.load(Ordering::Relaxed)))
}

/// A goroutine's table, made if there is none; `None`: memory is refused.
///
/// # Safety
/// It runs on this thread, and its table is not borrowed.
pub(super) unsafe fn table_of<'a>(g: *mut Goroutine) -> Option<&'a mut Table> {
    // SAFETY: the caller's promise; null or made here.
    unsafe {
        if (*(*g).bundle).locals.is_null() {
            (*(*g).bundle).locals = Box::into_raw(try_box(Table::default())?).cast();
        }
        Some(&mut *(*(*g).bundle).locals.cast::<Table>())
    }
}

/// `pthread_getspecific`.
pub(super) unsafe extern "C" fn pthread_getspecific(key: pthread_key_t) -> *mut c_void {
    // SAFETY: the table is this goroutine's; the original as called.
    unsafe {
        let Some((g, has_thread)) = running() else { return original::pthread_getspecific::call(key) };
        let table = (*(*g).bundle).locals.cast::<Table>().as_mut();
        match table.and_then(|table| table.find(key)) {
            Some(entry) => entry.value,
            None if has_thread => original::pthread_getspecific::call(key),
            None => ptr::null_mut(),
        }
    }
}

/// `pthread_setspecific`.
pub(super) unsafe extern "C" fn pthread_setspecific(key: pthread_key_t, value: *const c_void) -> c_int {
    // SAFETY: as in `pthread_getspecific`.
    unsafe {
        let Some((g, _)) = running() else { return original::pthread_setspecific::call(key, value) };
        let Some(table) = table_of(g) else { return libc::ENOMEM };
        if let Some(entry) = table.find(key) {
            entry.value = value.cast_mut();
        } else {
            if table.entries.try_reserve(1).is_err() {
                return libc::ENOMEM;
            }
            table.entries.retain(|entry| entry.key != key); // of a key that is gone
            table.entries.push(Entry { key, since: deletions(key), value: value.cast_mut() });
        }
        0
    }
}

/// `pthread_key_create`: remembers the destructor.
pub(super) unsafe extern "C" fn pthread_key_create(key: *mut pthread_key_t, destructor: Option<Destructor>) -> c_int {
    // SAFETY: as called.
    unsafe {
        let result = original::pthread_key_create::call(key, destructor);
        if result == 0
            && let Some(destructor) = destructor
        {
            let mut all = DESTRUCTORS.lock().unwrap_or_else(|e| e.into_inner());
            if all.get_or_insert_default().try_reserve(1).is_err() {
                original::pthread_key_delete::call(*key);
                return libc::ENOMEM;
            }
            all.get_or_insert_default().insert(*key, destructor);
        }
        result
    }
}

/// `pthread_key_delete`.
pub(super) unsafe extern "C" fn pthread_key_delete(key: pthread_key_t) -> c_int {
    if let Some(all) = DESTRUCTORS.lock().unwrap_or_else(|e| e.into_inner()).as_mut() {
        all.remove(&key);
    }
    if let Some(count) = DELETED.get(key as usize) {
        count.fetch_add(1, Ordering::Relaxed); // see `deletions`
    }
    // SAFETY: as called.
    unsafe { original::pthread_key_delete::call(key) }
}

fn destructor_of(key: pthread_key_t) -> Option<Destructor> {
    DESTRUCTORS.lock().unwrap_or_else(|e| e.into_inner()).as_ref().and_then(|all| all.get(&key).copied())
}

/// The end of a goroutine that has set keys: what POSIX does at a thread's.
///
/// # Safety
/// On the goroutine's stack, at its end.
pub(super) unsafe extern "C-unwind" fn drop_table(g: *mut Goroutine) {
    // SAFETY: the caller's promise.
    unsafe { locals::end(g) };
    let stops = (0..).map_while(|at| thread_stops().get(at).copied());
    for stop in stops {
        // SAFETY: a function without arguments of a library that stays loaded, for a thread that ends.
        unsafe { std::mem::transmute::<usize, unsafe extern "C" fn()>(stop)() };
    }
    for _ in 0..ROUNDS {
        let mut called = false;
        // Destructors find the values of all keys but their own, and may set more.
        for at in 0.. {
            // SAFETY: the table is this goroutine's, and is not borrowed while a destructor runs.
            let table = unsafe { &mut *(*(*g).bundle).locals.cast::<Table>() };
            let Some(entry) = table.entries.get_mut(at) else { break };
            let key = entry.key;
            if entry.value.is_null() || !entry.is_of(key) {
                continue;
            }
            let destructor = destructor_of(key);
            let value = std::mem::replace(&mut entry.value, ptr::null_mut());
            if let Some(destructor) = destructor {
                called = true;
                // SAFETY: the key's own destructor with a value of the key.
                unsafe { destructor(value) };
            }
        }
        if !called {
            break;
        }
    }
    // SAFETY: made by `table_of`; nobody else has it.
    unsafe { drop(Box::from_raw(std::mem::replace(&mut (*(*g).bundle).locals, ptr::null_mut()).cast::<Table>())) };
}
