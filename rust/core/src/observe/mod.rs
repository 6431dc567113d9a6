//! Layer 10: what others may see of the runtime. Reads only.

use crate::goroutine::{status, waiter};
use crate::primitive::atomic::Ordering;
use crate::sched::Runtime;
use std::fmt::Write;

/// Most goroutines a dump lists; the rest is counted.
const DUMP_LIMIT: usize = 100;

/// Every goroutine with its id and why it waits, in Go's form. Host attached.
pub fn dump(rt: &Runtime) -> String {
    let mut text = String::new();
    let mut count = 0usize;
    rt.registry.for_each(|g| {
        count += 1;
        if count > DUMP_LIMIT {
            return;
        }
        let reason = waiter::reason_name(g.reason.load(Ordering::Relaxed));
        let state = status::name(g.status.load(Ordering::Relaxed));
        let word = if reason.is_empty() { state } else { reason };
        let _ = writeln!(text, "goroutine {} [{word}]", g.id);
    });
    if count > DUMP_LIMIT {
        let _ = writeln!(text, "... and {} more", count - DUMP_LIMIT);
    }
    text
}
