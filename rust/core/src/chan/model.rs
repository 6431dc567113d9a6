//! Loom: channels between plain threads, which block on the model's futex. All of it is the real code.

use super::select::{Case, Selected, select};
use super::{Chan, RecvError, SendError};
use crate::goroutine::host::{Host, null_host};
use crate::goroutine::waiter::Outcome;
use crate::sched::Runtime;
use crate::sched::config::Config;
use loom::sync::Arc;
use loom::thread;

static HOST: Host = null_host();

fn runtime() -> &'static Runtime {
    Runtime::new(Config { max_machines: 0, seed: 1, ..Config::default() }, &HOST).expect("a runtime")
}

#[test]
fn unbuffered_send_and_receive_meet() {
    loom::model(|| {
        let (rt, chan) = (runtime(), Arc::new(Chan::new(0)));
        let other = chan.clone();
        let sender = thread::spawn(move || other.send(rt, 7u32, None));
        assert_eq!(chan.recv(rt, None), Ok(7));
        assert_eq!(sender.join().expect("no panic"), Ok(()));
    });
}

#[test]
fn buffered_values_of_one_sender_arrive_in_order() {
    loom::model(|| {
        let (rt, chan) = (runtime(), Arc::new(Chan::new(1)));
        let other = chan.clone();
        let sender = thread::spawn(move || {
            other.send(rt, 1u32, None).expect("open");
            other.send(rt, 2, None).expect("open");
        });
        assert_eq!((chan.recv(rt, None), chan.recv(rt, None)), (Ok(1), Ok(2)));
        sender.join().expect("no panic");
    });
}

#[test]
fn two_senders_and_a_receiver_lose_and_double_nothing() {
    loom::model(|| {
        let (rt, chan) = (runtime(), Arc::new(Chan::new(0)));
        let senders: Vec<_> = [1u32, 2]
            .into_iter()
            .map(|v| {
                let chan = chan.clone();
                thread::spawn(move || chan.send(rt, v, None))
            })
            .collect();
        let sum = chan.recv(rt, None).expect("open") + chan.recv(rt, None).expect("open");
        assert_eq!(sum, 3);
        senders.into_iter().for_each(|s| assert_eq!(s.join().expect("no panic"), Ok(())));
    });
}

#[test]
fn close_wakes_a_receiver_and_a_sender_gets_its_value_back() {
    loom::model(|| {
        let (rt, chan) = (runtime(), Arc::new(Chan::<u32>::new(0)));
        let other = chan.clone();
        let receiver = thread::spawn(move || other.recv(rt, None));
        chan.close().expect("the first");
        assert_eq!(receiver.join().expect("no panic"), Err(RecvError::Closed));
        assert_eq!(chan.send(rt, 3, None), Err(SendError::Closed(3)));
    });
    loom::model(|| {
        let (rt, chan) = (runtime(), Arc::new(Chan::new(0)));
        let other = chan.clone();
        let sender = thread::spawn(move || other.send(rt, 5u32, None));
        chan.close().expect("the first");
        assert_eq!(sender.join().expect("no panic"), Err(SendError::Closed(5)));
    });
}

#[test]
fn send_that_times_out_is_received_or_comes_back_never_both() {
    loom::model(|| {
        let (rt, chan) = (runtime(), Arc::new(Chan::new(0)));
        let other = chan.clone();
        let sender = thread::spawn(move || other.send(rt, 9u32, Some(0)));
        let received = chan.try_recv();
        match sender.join().expect("no panic") {
            Ok(()) => assert_eq!(received, Ok(9)),
            Err(e) => {
                assert_eq!(e, SendError::Ended(9, Outcome::TimedOut));
                assert_eq!(received, Err(RecvError::Empty));
            }
        }
        assert_eq!(chan.try_recv(), Err(RecvError::Empty));
    });
}

#[test]
fn select_takes_one_of_two_sends_and_leaves_the_other() {
    loom::model(|| {
        let rt = runtime();
        let chans = Arc::new([Chan::new(0), Chan::new(0)]);
        let senders: Vec<_> = [0, 1]
            .into_iter()
            .map(|i| {
                let chans = chans.clone();
                thread::spawn(move || chans[i].send(rt, i, None))
            })
            .collect();
        let mut cases = [Case::recv(Some(&chans[0])), Case::recv(Some(&chans[1]))];
        let Selected::Received(i) = select(rt, &mut cases, false, None) else { panic!("both are open") };
        assert_eq!(cases[i].slot.take(), Some(i));
        assert_eq!(chans[1 - i].recv(rt, None), Ok(1 - i));
        senders.into_iter().for_each(|s| assert_eq!(s.join().expect("no panic"), Ok(())));
    });
}

#[test]
fn select_that_times_out_has_its_value_or_its_partner_has_never_both() {
    loom::model(|| {
        let rt = runtime();
        let chans = Arc::new([Chan::new(0), Chan::new(0)]);
        let other = chans.clone();
        let selector = thread::spawn(move || {
            let mut cases = [Case::send(Some(&other[0]), 4u32), Case::recv(Some(&other[1]))];
            let selected = select(rt, &mut cases, false, Some(0));
            (selected, cases[0].slot, cases[1].slot)
        });
        let (taken, given) = (chans[0].try_recv(), chans[1].try_send(6));
        let want = match (taken, given) {
            (Ok(4), Err(SendError::Full(6))) => (Selected::Sent(0), None, None),
            (Err(RecvError::Empty), Ok(())) => (Selected::Received(1), Some(4), Some(6)),
            (Err(RecvError::Empty), Err(SendError::Full(6))) => (Selected::Ended(Outcome::TimedOut), Some(4), None),
            other => panic!("{other:?}"),
        };
        assert_eq!(selector.join().expect("no panic"), want);
        assert_eq!((chans[0].try_recv(), chans[1].try_send(7)), (Err(RecvError::Empty), Err(SendError::Full(7))));
    });
}

#[test]
fn two_selects_on_both_sides_of_a_channel_meet() {
    loom::model(|| {
        let (rt, chan) = (runtime(), Arc::new(Chan::new(0)));
        let both = |chan: &Chan<u32>, me| {
            let mut cases = [Case::send(Some(chan), me), Case::recv(Some(chan))];
            (select(rt, &mut cases, false, None), cases[1].slot)
        };
        let other = chan.clone();
        let second = thread::spawn(move || both(&other, 2));
        let outcomes = (both(&chan, 1), second.join().expect("no panic"));
        let expected = [
            ((Selected::Sent(0), None), (Selected::Received(1), Some(1))),
            ((Selected::Received(1), Some(2)), (Selected::Sent(0), None)),
        ];
        assert!(expected.contains(&outcomes), "{outcomes:?}");
    });
}
