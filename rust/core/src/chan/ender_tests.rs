//! Waits that an ender ends: of goroutines and of threads, on one channel and on many, also as others end them.

use super::select::{Case, Selected, select};
use super::{Chan, RecvError, SendError};
use crate::goroutine::ender::{Ender, EnderPlace, Until};
use crate::goroutine::waiter::Outcome;
use crate::sched::null_tests::{go, runtime};
use crate::sched::{Runtime, end_waits, gosched, now_ns, sleep_until};
use crate::sync::{Mutex, NotifyList, Semaphore};
use crate::{goroutine::waiter::Reason, primitive::atomic::Ordering};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::channel;
use std::thread;

/// Calls `op` with a place in the list of `ender`, beside the stack.
fn within<R>(ender: &Ender, deadline_ns: Option<u64>, op: impl FnOnce(Until) -> R) -> R {
    let place = Box::into_raw(Box::new(EnderPlace::new(ender, deadline_ns)));
    let result = op(Until::Ended(place));
    // SAFETY: made above; the wait is over.
    drop(unsafe { Box::from_raw(place) });
    result
}

fn count(ender: &Ender) -> usize {
    let mut n = 0;
    ender.for_each_waiter(|_| n += 1);
    n
}

/// Waits until `n` stand in the list.
fn wait_for(ender: &Ender, n: usize) {
    while count(ender) != n {
        thread::yield_now();
    }
}

/// Runs `op` as a goroutine, and gives what it gives.
fn start<R: Send + 'static>(
    rt: &'static Runtime,
    op: impl FnOnce() -> R + Send + 'static,
) -> std::sync::mpsc::Receiver<R> {
    let (tell, told) = channel();
    go(rt, move || tell.send(op()).expect("somebody listens"));
    told
}

#[test]
fn ending_ends_every_kind_of_wait() {
    let rt = runtime(2);
    let ender = Arc::new(Ender::new(0));
    let ops: Vec<Box<dyn FnOnce(Until) -> Outcome + Send>> = vec![
        Box::new(move |until| match Chan::<u32>::new(0).recv(rt, until) {
            Err(RecvError::Ended(outcome)) => outcome,
            other => panic!("{other:?}"),
        }),
        Box::new(move |until| match Chan::new(0).send(rt, 5, until) {
            Err(SendError::Ended(5, outcome)) => outcome,
            other => panic!("{other:?}"),
        }),
        Box::new(move |until| {
            let (a, b) = (Chan::<u32>::new(0), Chan::<u32>::new(0));
            let mut cases = [Case::recv(Some(&a)), Case::send(Some(&b), 1), Case::recv(None)];
            match select(rt, &mut cases, false, until) {
                Selected::Ended(outcome) => outcome,
                other => panic!("{other:?}"),
            }
        }),
        Box::new(move |until| match select::<u32>(rt, &mut [], false, until) {
            Selected::Ended(outcome) => outcome,
            other => panic!("{other:?}"),
        }),
        Box::new(move |until| {
            let mutex = Mutex::new();
            assert!(mutex.try_lock());
            mutex.lock(rt, until)
        }),
        Box::new(move |until| Semaphore::new(1).acquire(rt, 2, until)),
        Box::new(move |until| NotifyList::new().wait(rt, Reason::Cond, until, || {})),
        Box::new(move |until| sleep_until(rt, until)),
    ];
    let n = ops.len();
    let told: Vec<_> = ops
        .into_iter()
        .map(|op| {
            let ender = ender.clone();
            start(rt, move || within(&ender, None, op))
        })
        .collect();
    wait_for(&ender, n);
    end_waits(&ender);
    assert!(told.into_iter().all(|told| told.recv() == Ok(Outcome::ContextDone)));
    assert_eq!(count(&ender), 0);
}

#[test]
fn what_has_ended_ends_waits_at_once() {
    let rt = runtime(1);
    let ender = Arc::new(Ender::new(0));
    end_waits(&ender);
    assert_eq!(within(&ender, None, |until| sleep_until(rt, until)), Outcome::ContextDone);
    let told = start(rt, move || within(&ender, None, |until| sleep_until(rt, until)));
    assert_eq!(told.recv(), Ok(Outcome::ContextDone));
}

#[test]
fn waits_that_end_otherwise_leave_the_list() {
    let rt = runtime(1);
    let (ender, chan) = (Arc::new(Ender::new(0)), Arc::new(Chan::new(0)));
    let (inside, there) = (ender.clone(), chan.clone());
    let told = start(rt, move || within(&inside, None, |until| there.recv(rt, until)));
    wait_for(&ender, 1);
    chan.try_send(3).expect("somebody waits");
    assert_eq!(told.recv(), Ok(Ok(3)));
    assert_eq!(count(&ender), 0);
    let inside = ender.clone();
    let told =
        start(rt, move || within(&inside, Some(now_ns() + 1_000_000), |until| Chan::<u32>::new(0).recv(rt, until)));
    assert_eq!(told.recv(), Ok(Err(RecvError::Ended(Outcome::TimedOut))));
    let timed = within(&ender, Some(now_ns() + 1_000_000), |until| Chan::<u32>::new(0).recv(rt, until));
    assert_eq!(timed, Err(RecvError::Ended(Outcome::TimedOut)));
    assert_eq!(count(&ender), 0);
}

#[test]
fn nothing_is_lost_while_many_send_and_are_ended() {
    const ROUNDS: usize = 200;
    let rt = runtime(4);
    let received = Arc::new(AtomicUsize::new(0));
    for round in 0..ROUNDS {
        let (ender, chan) = (Arc::new(Ender::new(0)), Arc::new(Chan::new(round % 2)));
        let receivers: Vec<_> = (0..4)
            .map(|_| {
                let (ender, chan, received) = (ender.clone(), chan.clone(), received.clone());
                start(rt, move || {
                    if within(&ender, None, |until| chan.recv(rt, until)).is_ok() {
                        received.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let (there, before) = (chan.clone(), received.load(Ordering::Relaxed));
        let sent = start(rt, move || {
            (0..4)
                .filter(|_| {
                    gosched();
                    there.try_send(1u32).is_ok()
                })
                .count()
        });
        end_waits(&ender);
        receivers.into_iter().for_each(|told| told.recv().expect("it ends"));
        let sent = sent.recv().expect("it ends");
        assert_eq!(received.load(Ordering::Relaxed) - before + chan.len(), sent);
    }
}
