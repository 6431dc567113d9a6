//! What the tests of the core share: a runtime on a host without a language and without a lock, and its goroutines.

use super::Runtime;
use super::config::Config;
use crate::goroutine::host::{Host, null_host};

static HOST: Host = null_host();

/// A runtime of its own for a test.
pub(crate) fn runtime(processors: usize) -> &'static Runtime {
    Runtime::new(Config { processors, ..Config::default() }, &HOST).expect("a runtime")
}

/// Starts `body` as a goroutine.
pub(crate) fn go(rt: &'static Runtime, body: impl FnOnce() + Send + 'static) {
    let body: Box<dyn FnOnce() + Send> = Box::new(body);
    rt.spawn(Box::into_raw(Box::new(body)).cast(), |_| {});
}
