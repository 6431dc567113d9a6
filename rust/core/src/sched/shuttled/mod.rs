//! The whole scheduler in many thousands of schedules: real code from spawn to exit, where a thread of the model stands for
//! each M, for sysmon and for each goroutine's stack (`context::thread_backed`). The futex, the poller and the clock are
//! models; stores come late (`primitive::delayed`).
//!
//! Most tests keep sysmon from starting: it looks at what was forgotten, and would hide a lost wake-up for ever. Without it
//! one is a deadlock, which shuttle reports. `make mutants` takes the scheduler's fences, wake-ups and second looks out, one at
//! a time, and sees to it that these tests fail (tools/mutants.py has the list).

mod bubbles;
mod gil;
mod host;
mod processors;
mod schedules;
mod waits;
mod work;

use super::Runtime;
use super::config::Config;
use crate::goroutine::host::{Host, null_host};
use crate::primitive::atomic::Ordering;
use crate::sync::WaitGroup;
use schedules::{explore, seed};
use std::sync::Arc;

static HOST: Host = null_host();

fn config(processors: usize) -> Config {
    // A slab of one small slot each: stacks are not used.
    Config { processors, stack_bytes: 64 << 10, seed: seed() + 1, ..Config::default() }
}

/// A runtime on a host without a lock, and without sysmon.
fn runtime(processors: usize) -> &'static Runtime {
    let rt = Runtime::new(config(processors), &HOST).expect("a runtime");
    rt.sysmon_started.store(true, Ordering::SeqCst);
    rt
}

/// The same with it. To have it end, `stop`.
fn runtime_with_sysmon(processors: usize) -> &'static Runtime {
    Runtime::new(config(processors), &HOST).expect("a runtime")
}

fn go(rt: &'static Runtime, body: impl FnOnce() + Send + 'static) {
    let body: Box<dyn FnOnce() + Send> = Box::new(body);
    rt.spawn(Box::into_raw(Box::new(body)).cast(), |_| {});
}

fn group(count: i64) -> Arc<WaitGroup> {
    let group = Arc::new(WaitGroup::new());
    group.add(count).expect("adds");
    group
}

fn done(group: &WaitGroup) {
    group.add(-1).expect("not negative");
}

/// Waits as a plain thread, or as a goroutine.
fn wait(rt: &'static Runtime, group: &WaitGroup) {
    let _ = group.wait(rt, None);
    assert_eq!(group.count(), 0);
}

/// All goroutines have ended, and come to rest: no P and no M is lost. In a model that never comes to it the steps run out.
fn comes_to_rest(rt: &'static Runtime) {
    let rests = || {
        rt.idle_processors.load(Ordering::SeqCst) == rt.processors.in_use()
            && rt.idle_machine_count() == rt.machine_count.load(Ordering::SeqCst)
    };
    while !rests() {
        shuttle::thread::yield_now();
    }
    assert!(!rt.has_work(), "work is left, and nobody at it");
    assert_eq!(rt.spinning.load(Ordering::SeqCst), 0);
    assert_eq!(rt.registry.live(), 0);
}
