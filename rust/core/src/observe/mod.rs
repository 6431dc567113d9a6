//! Layer 10: what others may see of the runtime. Reads only.

pub mod pprof_proto;

use crate::goroutine::{Blocked, Goroutine, status};
use crate::primitive::atomic::Ordering;
use crate::sched::Runtime;
use std::fmt::Write;

/// Most goroutines a dump lists; the rest is counted.
const DUMP_LIMIT: usize = 100;

/// Every goroutine with its id and why it waits, in Go's form. Host attached.
/// `None`: there is no memory for it.
pub fn dump(rt: &Runtime) -> Option<String> {
    dump_some(rt, |_| true)
}

/// The same for those of one bubble.
pub fn dump_bubble(rt: &Runtime, bubble: u32) -> Option<String> {
    dump_some(rt, |g| g.bubble.id == bubble)
}

/// Whether all goroutines but `besides` are parked. Host attached.
pub fn are_parked(rt: &Runtime, besides: *const Goroutine) -> bool {
    let mut all = true;
    rt.registry.for_each(|g| {
        all &= std::ptr::eq(g, besides) || g.status.load(Ordering::Acquire) == status::WAITING; // pairs with the stores of the status protocol
    });
    all
}

/// Text that ends where memory is refused.
struct Text {
    text: String,
    is_whole: bool,
}

impl Write for Text {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        self.is_whole &= self.text.try_reserve(part.len()).is_ok();
        if !self.is_whole {
            return Err(std::fmt::Error);
        }
        self.text.push_str(part);
        Ok(())
    }
}

fn dump_some(rt: &Runtime, is_listed: impl Fn(&Goroutine) -> bool) -> Option<String> {
    let mut text = Text { text: String::new(), is_whole: true };
    let mut count = 0usize;
    rt.registry.for_each(|g| {
        if !is_listed(g) {
            return;
        }
        count += 1;
        if count > DUMP_LIMIT {
            return;
        }
        let _ = write!(text, "goroutine {} [{}", g.id, g.word());
        if g.bubble.id != 0 {
            let durable = if g.bubble.blocked == Blocked::Durably { " (durable)" } else { "" };
            let _ = write!(text, "{durable}, synctest bubble {}", g.bubble.id);
        }
        // SAFETY: null, or alive as long as the goroutine is; a moment's view.
        let kept_ms =
            unsafe { g.bundle.as_ref() }.map_or(0, |bundle| bundle.kept_lock_ns.load(Ordering::Relaxed)) / 1_000_000;
        if kept_ms != 0 {
            let _ = write!(text, ", kept the interpreter's lock for {kept_ms} ms in a call");
        }
        let _ = text.write_str("]\n");
    });
    if count > DUMP_LIMIT {
        let _ = writeln!(text, "... and {} more", count - DUMP_LIMIT);
    }
    text.is_whole.then_some(text.text)
}
