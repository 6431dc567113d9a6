//! When goroutines were started, kept while somebody asked for it.
//!
//! Only touched with the GIL held.

use gort_core::sched::now_ns;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Whether they are kept.
pub(crate) static KEEPS: AtomicBool = AtomicBool::new(false);

/// The time of the start, ns, by id.
static STARTS: Mutex<Option<HashMap<u64, u64>>> = Mutex::new(None);

fn starts() -> MutexGuard<'static, Option<HashMap<u64, u64>>> {
    STARTS.lock().unwrap_or_else(|e| e.into_inner())
}

/// Keeps them from now on, or forgets them all; whether they were kept.
pub(crate) fn keep(on: bool) -> bool {
    let mut starts = starts();
    if on {
        starts.get_or_insert_with(HashMap::new);
    } else {
        *starts = None;
    }
    KEEPS.swap(on, Ordering::Relaxed)
}

/// The goroutine of this id starts now. Nothing is noted where memory is refused.
pub(crate) fn add(id: u64) {
    if let Some(starts) = &mut *starts()
        && starts.try_reserve(1).is_ok()
    {
        starts.insert(id, now_ns());
    }
}

/// At the end of the goroutine of this id.
pub(crate) fn forget(id: u64) {
    if let Some(starts) = &mut *starts() {
        starts.remove(&id);
    }
}

/// Seconds since its start; `None`: it was not kept.
pub(crate) fn of(id: u64) -> Option<f64> {
    let start = *starts().as_ref()?.get(&id)?;
    Some(now_ns().saturating_sub(start) as f64 / 1e9)
}
