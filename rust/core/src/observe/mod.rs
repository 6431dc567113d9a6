//! Layer 10: what others may see of the runtime. Reads only.

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
        let _ = write!(text, "goroutine {} [{}", g.id, g.word());
        let kept_ms = g.kept_lock_ns.load(Ordering::Relaxed) / 1_000_000;
        if kept_ms != 0 {
            let _ = write!(text, ", kept the interpreter's lock for {kept_ms} ms in a call");
        }
        text.push_str("]\n");
    });
    if count > DUMP_LIMIT {
        let _ = writeln!(text, "... and {} more", count - DUMP_LIMIT);
    }
    text
}
