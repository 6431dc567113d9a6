//! pthread keys per goroutine, for libraries that keep a thread's state in them (OpenSSL's error queue, first of all).
//!
//! The number of a key is the C library's; only where its value is kept differs. A goroutine that sets one has a table of
//! its own. The main goroutine has one too, because it may run on another thread for a while, and what it set before
//! there were hooks it still finds on its own thread. g0 and plain threads keep the C library's.

use super::hooks::original;
use crate::goroutine::Goroutine;
use crate::primitive::atomic::Ordering;
use crate::sched::current_machine;
use libc::{c_int, c_void, pthread_key_t};
use std::collections::HashMap;
use std::ptr;
use std::sync::{Mutex, MutexGuard};

/// How often the destructors run when they set values anew. POSIX's least.
const ROUNDS: usize = 4;

type Destructor = unsafe extern "C" fn(*mut c_void);

/// Destructors of keys made since the hooks are in place.
static DESTRUCTORS: Mutex<Destructors> = Mutex::new(None);

/// Functions that end a thread's part of a library whose keys are older than the hooks (`OPENSSL_thread_stop`).
static THREAD_STOPS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

type Destructors = Option<HashMap<pthread_key_t, Destructor>>;

/// Both tables' locks, held over a fork.
pub(super) fn hold() -> (MutexGuard<'static, Destructors>, MutexGuard<'static, Vec<usize>>) {
    let destructors = DESTRUCTORS.lock().unwrap_or_else(|e| e.into_inner());
    (destructors, THREAD_STOPS.lock().unwrap_or_else(|e| e.into_inner()))
}

/// What one goroutine has set; a handful of keys.
#[derive(Default)]
struct Table(Vec<(pthread_key_t, *mut c_void)>);

/// Adds a function that is called at the end of each goroutine that has set a key.
pub(super) fn add_thread_stop(function: usize) {
    let mut all = THREAD_STOPS.lock().unwrap_or_else(|e| e.into_inner());
    if !all.contains(&function) {
        all.push(function);
    }
}

/// The goroutine that runs here, and whether it is the main one on its own thread.
fn running() -> Option<(*mut Goroutine, bool)> {
    let m = current_machine();
    // SAFETY: this thread's M; while it is not on g0 its current goroutine is alive and this thread's.
    unsafe {
        if m.is_null() || (*m).in_scheduler.load(Ordering::Relaxed) {
            return None;
        }
        let g = (*m).current;
        let is_main = ptr::eq(g, (*m).rt.main.load(Ordering::Relaxed));
        Some((g, is_main && ptr::eq((*g).owner().cast(), m)))
    }
}

/// `pthread_getspecific`.
pub(super) unsafe extern "C" fn pthread_getspecific(key: pthread_key_t) -> *mut c_void {
    // SAFETY: the table is this goroutine's; the original as called.
    unsafe {
        let Some((g, has_thread)) = running() else { return original::pthread_getspecific::call(key) };
        let table = (*g).locals.cast::<Table>().as_ref();
        match table.and_then(|table| table.0.iter().find(|(k, _)| *k == key)) {
            Some((_, value)) => *value,
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
        if (*g).locals.is_null() {
            (*g).locals = Box::into_raw(Box::new(Table::default())).cast();
        }
        let table = &mut (*(*g).locals.cast::<Table>()).0;
        if let Some(place) = table.iter_mut().find(|(k, _)| *k == key) {
            place.1 = value.cast_mut();
        } else {
            if table.try_reserve(1).is_err() {
                return libc::ENOMEM;
            }
            table.push((key, value.cast_mut()));
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
    // SAFETY: as called.
    unsafe { original::pthread_key_delete::call(key) }
}

/// The end of a goroutine that has set keys: what POSIX does at a thread's.
///
/// # Safety
/// On the goroutine's stack, at its end.
pub(super) unsafe fn drop_table(g: *mut Goroutine) {
    let stops = THREAD_STOPS.lock().unwrap_or_else(|e| e.into_inner()).clone();
    for stop in stops {
        // SAFETY: a function without arguments of a library that stays loaded, for a thread that ends.
        unsafe { std::mem::transmute::<usize, unsafe extern "C" fn()>(stop)() };
    }
    for _ in 0..ROUNDS {
        // SAFETY: the table is this goroutine's; destructors may set keys again.
        let values = unsafe { std::mem::take(&mut (*(*g).locals.cast::<Table>()).0) };
        if values.iter().all(|(_, value)| value.is_null()) {
            break;
        }
        for (key, value) in values.into_iter().filter(|(_, value)| !value.is_null()) {
            let destructor =
                DESTRUCTORS.lock().unwrap_or_else(|e| e.into_inner()).as_ref().and_then(|all| all.get(&key).copied());
            if let Some(destructor) = destructor {
                // SAFETY: the key's own destructor with a value of the key.
                unsafe { destructor(value) };
            }
        }
    }
    // SAFETY: made by `pthread_setspecific`; nobody else has it.
    unsafe { drop(Box::from_raw(std::mem::replace(&mut (*g).locals, ptr::null_mut()).cast::<Table>())) };
}
