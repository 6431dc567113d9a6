//! An M whose thread gets no state of the host's at first, since memory is refused, serves all the same.

use super::Runtime;
use super::config::Config;
use super::null_tests::go;
use crate::goroutine::host::{Host, HostThread, null_host};
use crate::primitive::atomic::{AtomicI32, Ordering};
use crate::sync::WaitGroup;
use std::ptr;
use std::sync::Arc;

static REFUSALS: AtomicI32 = AtomicI32::new(5);

unsafe fn stingy_home() -> HostThread {
    if REFUSALS.fetch_sub(1, Ordering::Relaxed) > 0 { ptr::null_mut() } else { ptr::dangling_mut() }
}

static HOST: Host = Host { new_home: stingy_home, ..null_host() };

#[test]
fn what_a_thread_was_started_for_waits_until_it_has_a_state() {
    let rt = Runtime::new(Config { processors: 1, ..Config::default() }, &HOST).expect("a runtime");
    let group = Arc::new(WaitGroup::new());
    for _ in 0..3 {
        group.add(1).expect("adds");
        let group = group.clone();
        go(rt, move || group.done_for_test());
    }
    let _ = group.wait(rt, None);
    assert!(REFUSALS.load(Ordering::Relaxed) < 0);
}
