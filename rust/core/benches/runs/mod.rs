//! A runtime on the host without a lock, and goroutines that are closures, for the benches that need them.

use gort_core::goroutine::host::{Host, null_host};
use gort_core::sched::Runtime;
use gort_core::sched::config::Config;
use std::sync::mpsc;

static HOST: Host = null_host();

/// One processor: nothing runs beside what is measured.
pub(crate) fn runtime() -> &'static Runtime {
    Runtime::new(Config::default(), &HOST).expect("a runtime")
}

/// Starts `body` as a goroutine.
pub(crate) fn go(rt: &'static Runtime, body: impl FnOnce() + Send + 'static) {
    let body: Box<dyn FnOnce() + Send> = Box::new(body);
    rt.spawn(Box::into_raw(Box::new(body)).cast(), |_| {});
}

/// Runs `body` as a goroutine and waits for its end.
pub(crate) fn run(rt: &'static Runtime, body: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = mpsc::channel();
    go(rt, move || {
        body();
        sender.send(()).expect("main waits");
    });
    receiver.recv().expect("the goroutine ends");
}
