//! Layer 10: what others may see of the runtime. Reads only.

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
        let _ = writeln!(text, "goroutine {} [{}]", g.id, g.word());
    });
    if count > DUMP_LIMIT {
        let _ = writeln!(text, "... and {} more", count - DUMP_LIMIT);
    }
    text
}
