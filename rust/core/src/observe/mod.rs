//! Layer 10: what others may see of the runtime. Reads only.

pub mod metrics;
pub mod pprof_proto;
#[cfg(not(model))]
pub mod trace;

use crate::goroutine::{Blocked, Bundle, Goroutine, status};
use crate::primitive::atomic::Ordering;
use crate::primitive::tries::try_push;
use crate::sched::Runtime;
use crate::sched::machine::Machine;
use crate::sys::thread;
use std::fmt::Write;
use std::mem::offset_of;

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
pub struct Text {
    /// What there is of it.
    pub text: String,
    /// Whether that is all.
    pub is_whole: bool,
}

impl Text {
    /// Nothing yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { text: String::new(), is_whole: true }
    }
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

/// What can be told of every goroutine by a thread that has not got the host's lock: what it does, and since when. A moment's view
/// of each: descriptors are never freed, and what else is read may be gone.
pub fn dump_unattached(rt: &Runtime, text: &mut Text) {
    let now_s = rt.sampler.clock_s();
    let mut list = Vec::new();
    rt.registry.for_each(|g| text.is_whole &= try_push(&mut list, std::ptr::from_ref(g)).is_some());
    // SAFETY: descriptors are never freed.
    let id = |g: &*const Goroutine| unsafe { (**g).id };
    list.sort_unstable_by_key(id);
    for g in list {
        // SAFETY: as above.
        let g = unsafe { &*g };
        let written = write_unattached(rt, g, now_s, text);
        if written.is_err() {
            return;
        }
    }
}

fn write_unattached(rt: &Runtime, g: &Goroutine, now_s: u32, text: &mut Text) -> std::fmt::Result {
    let status = g.status.load(Ordering::Acquire); // pairs with the Release of who parked it
    let m = g.owner().cast::<Machine>().cast_const();
    // SAFETY: null or an M, which is never freed.
    let is_out = status == status::RUNNING && unsafe { m.as_ref() }.is_some_and(|m| rt.is_out(m));
    write!(text, "goroutine {} [{}", g.id, if is_out { "syscall" } else { g.word() })?;
    let mut parked_s = [0usize];
    let place = g.bundle.addr() + offset_of!(Bundle, parked_s);
    if status == status::WAITING && !g.bundle.is_null() && thread::peek(place, &mut parked_s) == 1 {
        // The first four bytes: all systems this runs on are little-endian, or their figure is left out below.
        let minutes = now_s.wrapping_sub(parked_s[0] as u32) / 60;
        if (1..1 << 20).contains(&minutes) {
            write!(text, ", {minutes} minutes")?;
        }
    }
    if g.bubble.id != 0 {
        write!(text, ", synctest bubble {}", g.bubble.id)?;
    }
    if status == status::RUNNING && !is_out {
        text.write_str(", has the interpreter's lock or waits for it")?;
    }
    text.write_str("]:\n\n")
}

fn dump_some(rt: &Runtime, is_listed: impl Fn(&Goroutine) -> bool) -> Option<String> {
    let mut text = Text::new();
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
            let durable = if g.blocked == Blocked::Durably { " (durable)" } else { "" };
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
