//! Loom: an ender, a sender and a receiver that waits between plain threads. All of it is the real code.

use super::{Chan, RecvError, SendError};
use crate::goroutine::ender::{Ender, EnderPlace, Until};
use crate::goroutine::host::{Host, null_host};
use crate::goroutine::waiter::Outcome;
use crate::sched::config::Config;
use crate::sched::{Runtime, end_waits};
use loom::sync::Arc;
use loom::thread;

static HOST: Host = null_host();

fn runtime() -> &'static Runtime {
    Runtime::new(Config { max_machines: 0, seed: 1, ..Config::default() }, &HOST).expect("a runtime")
}

#[test]
fn wait_that_is_ended_as_it_begins_ends() {
    loom::model(|| {
        let (rt, ender) = (runtime(), Arc::new(Ender::new(0)));
        let other = ender.clone();
        let waiter = thread::spawn(move || {
            let mut place = EnderPlace::new(&raw const *other, None);
            Chan::<u32>::new(0).recv(rt, Until::Ended(&raw mut place))
        });
        end_waits(&ender);
        assert_eq!(waiter.join().expect("no panic"), Err(RecvError::Ended(Outcome::ContextDone)));
    });
}

#[test]
fn value_is_received_or_still_the_senders_when_both_come_at_once() {
    loom::model(|| {
        let (rt, ender, chan) = (runtime(), Arc::new(Ender::new(0)), Arc::new(Chan::new(0)));
        let (other, there) = (ender.clone(), chan.clone());
        let receiver = thread::spawn(move || {
            let mut place = EnderPlace::new(&raw const *other, None);
            there.recv(rt, Until::Ended(&raw mut place))
        });
        let there = chan.clone();
        let sender = thread::spawn(move || there.try_send(7u32));
        end_waits(&ender);
        let received = receiver.join().expect("no panic");
        match sender.join().expect("no panic") {
            Ok(()) => assert_eq!(received, Ok(7)),
            Err(SendError::Full(7)) => assert_eq!(received, Err(RecvError::Ended(Outcome::ContextDone))),
            Err(other) => panic!("{other:?}"),
        }
        assert!(chan.try_recv() == Err(RecvError::Empty) && chan.try_send(8) == Err(SendError::Full(8)));
    });
}
