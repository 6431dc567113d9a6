//! Which libraries keep OS threads in calls that last: a program may want to opt them in (`install::add`).
//!
//! sysmon has found a goroutine in a call long enough to hand its P off. The stack of that thread, from the call on, is read
//! as words; the first that points into an object's code tells who called. Now and then a stale word names another one:
//! the counts are advice. Only every so often, so that programs with many such calls lose nothing by it.

use super::install;
use crate::sys::{clock, thread};
use std::sync::atomic::{AtomicU64, Ordering};

/// Between two looks, ns: a look takes about 20 us, of sysmon's time.
const EVERY_NS: u64 = 10_000_000;
/// How much of a stack is looked at: the frames of the C library and of a library's own around a call.
const WORDS: usize = 512;

static NEXT_NS: AtomicU64 = AtomicU64::new(0);

/// What `Runtime::on_lasting_call` calls: on sysmon.
pub(super) fn lasting_call(tid: u32) {
    let now = clock::now_ns();
    if now < NEXT_NS.load(Ordering::Relaxed) {
        return; // sysmon is one thread
    }
    NEXT_NS.store(now + EVERY_NS, Ordering::Relaxed);
    if let Some(end) = thread::stack_in_call(tid) {
        let mut words = [0; WORDS];
        let count = thread::peek(end, &mut words);
        install::blame(&words[..count]);
    }
}
