//! Traces of the core alone: every list of records gives one that the rules take, and what the scheduler notes is what went on.

use super::encoder::{Begin, Encoder};
use super::rules::{Event, check};
use super::wire::{HEADER, ev};
use super::*;
use crate::chan::Chan;
use crate::event::{BLOCK_BYTES, Kind, MOST_FOLLOWING, NO_P, Session, User};
use crate::sched::null_tests::{go, runtime};
use crate::sched::traced::{Does, Found};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};

const SECOND_NS: u64 = 1_000_000_000;

/// A session that nobody writes to.
fn session() -> &'static Session {
    #[repr(align(64))]
    struct Aligned(#[allow(dead_code, reason = "only its place is used")] [u8; BLOCK_BYTES]);
    let aligned = Box::leak(Box::new(Aligned([0; BLOCK_BYTES])));
    // SAFETY: leaked, aligned, of that size.
    let block = unsafe { Block::make(ptr::from_mut(aligned).cast()) };
    Box::leak(Box::new(Session::new(block, None)))
}

fn encoder(found: Vec<Found>) -> Encoder {
    let clocks = Clocks::new(Moment { time: 100, ns: 100 });
    let begin = Begin {
        session: session(),
        tid: 0,
        found,
        processors: 2,
        now_ns: 100,
        wall_ahead_ns: 5,
        period_ns: SECOND_NS,
        clocks,
    };
    Encoder::new(begin).unwrap()
}

fn record(kind: Kind, ns: u64, m: u32, p: u16, g: u64, arg: u32) -> Record {
    Record { kind: kind as u8, aux: 0, p, m, time: ns, g, arg, stack: 0 }
}

/// The trace of these records.
fn trace(mut encoder: Encoder, records: &[(Record, Vec<Record>)]) -> Vec<u8> {
    for (record, rest) in records {
        encoder.take(record, rest).unwrap();
    }
    encoder.begin_if_none().unwrap();
    encoder.end_generation().unwrap();
    [&HEADER[..], &encoder.wire.out].concat()
}

fn kinds(events: &[Event]) -> Vec<u8> {
    events.iter().map(|event| event.kind).collect()
}

fn found(id: u64, does: Does, m: u32, p: u16) -> Found {
    Found { id, does, m, p, entry: 0 }
}

#[test]
fn a_send_to_who_waits() {
    let found = vec![found(1, Does::Runs, 10, 0), found(2, Does::Waits, 0, NO_P)];
    let records = [
        (record(Kind::Ready, 200, 10, 0, 2, 0), vec![]),
        (record(Kind::Block, 300, 10, 0, 1, 0), vec![]),
        (record(Kind::Start, 400, 10, 0, 2, 0), vec![]),
        (record(Kind::End, 500, 10, 0, 2, 0), vec![]),
        (record(Kind::Idle, 600, 10, NO_P, 0, 0), vec![]),
    ];
    let events = check(&trace(encoder(found), &records)).unwrap();
    let expected = [
        ev::GO_STATUS,
        ev::PROC_STATUS,
        ev::GO_STATUS,
        ev::GO_UNBLOCK,
        ev::PROCS_CHANGE,
        ev::GO_BLOCK,
        ev::GO_START,
        ev::GO_DESTROY,
        ev::PROC_STOP,
    ];
    assert_eq!(kinds(&events), expected);
    assert_eq!(events[6].args, [2, 2], "its second event with a number");
}

#[test]
fn a_switch_that_is_one_record_is_two_events_of_one_moment() {
    let found = vec![found(1, Does::Runs, 10, 0), found(2, Does::Ready, 0, NO_P)];
    let records = [
        (record(Kind::Block, 200, 10, 0, 1, 2), vec![]),
        (record(Kind::Ready, 300, 10, 0, 1, 7), vec![]), // which starts nobody
        (record(Kind::Stop, 400, 10, 0, 2, 1), vec![]),
        (record(Kind::End, 500, 10, 0, 1, 2), vec![]),
    ];
    let events = check(&trace(encoder(found), &records)).unwrap();
    let expected = [
        (ev::GO_BLOCK, 200),
        (ev::GO_START, 200),
        (ev::GO_UNBLOCK, 300),
        (ev::GO_STOP, 400),
        (ev::GO_START, 400),
        (ev::GO_DESTROY, 500),
        (ev::GO_START, 500),
    ];
    let told = |e: &Event| ![ev::GO_STATUS, ev::PROC_STATUS, ev::PROCS_CHANGE].contains(&e.kind);
    assert_eq!(events.iter().filter(|e| told(e)).map(|e| (e.kind, e.ns)).collect::<Vec<_>>(), expected);
}

#[test]
fn who_comes_back_from_a_call_without_its_p_runs_on_one_that_there_is_not() {
    let found = vec![found(1, Does::Runs, 10, 0), found(2, Does::Ready, 0, NO_P)];
    let records = [
        (record(Kind::Take, 200, 11, NO_P, 0, 0), vec![]),
        (record(Kind::Start, 300, 11, 0, 2, 0), vec![]),
        (record(Kind::Create, 400, 10, NO_P, 3, 0), vec![]),
        (record(Kind::Block, 500, 10, NO_P, 1, 0), vec![]),
    ];
    let events = check(&trace(encoder(found), &records)).unwrap();
    let on_ten: Vec<_> = events.iter().filter(|e| e.m == 10).map(|e| e.kind).collect();
    let expected = [
        ev::PROC_STATUS,
        ev::GO_STATUS,
        ev::SYSCALL_BEGIN,
        ev::SYSCALL_END_BLOCKED,
        ev::PROC_STATUS,
        ev::PROC_START,
        ev::GO_START,
        ev::GO_CREATE,
        ev::GO_BLOCK,
        ev::PROC_STOP,
    ];
    assert_eq!(on_ten, expected);
}

#[test]
fn a_pass_over_a_generation_that_is_the_first_for_its_reader() {
    let mut encoder = encoder(vec![found(1, Does::Runs, 10, 0)]);
    encoder.take(&record(Kind::CollectBegin, 200, 10, 0, 1, 0), &[]).unwrap();
    encoder.take(&record(Kind::Block, 300, 10, 0, 1, 0), &[]).unwrap();
    encoder.end_generation().unwrap();
    let first = std::mem::take(&mut encoder.wire.out);
    let last = [
        (record(Kind::Ready, 400, 10, 0, 1, 0), vec![]),
        (record(Kind::Start, 500, 10, 0, 1, 0), vec![]),
        (record(Kind::CollectEnd, 600, 10, 0, 1, 0), vec![]),
        (record(Kind::CollectBegin, 700, 10, 0, 1, 0), vec![]),
        (record(Kind::CollectEnd, 800, 10, 0, 1, 0), vec![]),
    ];
    let second = trace(encoder, &last);
    let events = check(&second).unwrap();
    assert_eq!(events.iter().filter(|e| e.kind == ev::GC_ACTIVE).count(), 1);
    assert_eq!(events.iter().filter(|e| e.kind == ev::GC_END).count(), 2);
    check(&[&HEADER[..], &first, &second[HEADER.len()..]].concat()).unwrap();
}

#[test]
fn words_are_kept_as_long_as_gos() {
    let mut rest = [Record::default(); MOST_FOLLOWING];
    let long = "ä".repeat(2000);
    let used = User::pack(7, 0, b"key", long.as_bytes(), &mut rest);
    assert_eq!(User::unpack(&rest[..used]).map(|(user, first, _)| (user.task, first)), Some((7, &b"key"[..])));
    assert_eq!(User::unpack(&rest[..used - 1]), None);
    let mut head = record(Kind::Log, 200, 10, 0, 1, 0);
    head.aux = used as u8;
    assert_eq!(head.following(), used);
    let found = vec![found(1, Does::Runs, 10, 0)];
    let events = check(&trace(encoder(found), &[(head, rest[..used].to_vec())])).unwrap();
    let log = events.iter().find(|e| e.kind == ev::USER_LOG).unwrap();
    assert_eq!((&log.texts[0][..], &log.texts[1]), ("key", &"ä".repeat(512)));
}

#[test]
fn a_wait_for_the_lock_and_a_pass_over_stacks_are_told_when_they_are_over() {
    let late = |kind, ns, m, g, steps, stack| Record { stack, ..record(kind, ns, m, 0, g, steps) };
    let records = [
        (record(Kind::Ready, 10_000, 10, 0, 2, 0), vec![]),
        (late(Kind::HostLock, 20_000, 10, 1, 200, 100), vec![]), // for 3,200 ns, until 1,600 ago
        (late(Kind::HostLock, 21_000, 10, 1, 400, 0), vec![]),   // some of it was before the other one
        (record(Kind::Block, 30_000, 10, 0, 1, 0), vec![]),
        (late(Kind::Shrink, 40_000, 11, 5_000, 100, 3), vec![]),
        (late(Kind::HostLock, 50_000, 11, 0, 1, 1), vec![]), // of nobody
        (late(Kind::HostLock, 51_000, 10, 1, 1, 3_000), vec![]), // before the trace
    ];
    let found = vec![found(1, Does::Runs, 10, 0), found(2, Does::Waits, 0, NO_P)];
    let events = check(&trace(encoder(found), &records)).unwrap();
    let of = |kinds: [u8; 2]| {
        events.iter().filter(move |e| kinds.contains(&e.kind)).map(|e| (e.ns, e.g)).collect::<Vec<_>>()
    };
    let waits = [(15_200, 1), (18_400, 1), (18_400, 1), (21_000, 1)];
    assert_eq!(of([ev::REGION_BEGIN, ev::REGION_END]), waits);
    assert_eq!(of([ev::SWEEP_BEGIN, ev::SWEEP_END]), [(40_000, 0), (40_000, 0)], "it had no P before");
    assert_eq!(events.iter().find(|e| e.kind == ev::SWEEP_END).unwrap().args, [5_000, 3 * 4096]);
}

#[test]
fn samples_of_a_cpu_profile_are_in_a_table() {
    let mut encoder = encoder(vec![found(1, Does::Runs, 10, 0)]);
    let before = encoder.wire.samples();
    encoder.take(&record(Kind::Sample, 200, 10, 0, 1, 3), &[]).unwrap();
    encoder.take(&record(Kind::Sample, 300, 10, NO_P, 0, u32::MAX), &[]).unwrap();
    assert_eq!((before, encoder.wire.samples()), (0, 1003));
    check(&trace(encoder, &[])).unwrap();
}

#[test]
fn many_generations_are_one_after_another() {
    let found = (1..=3000).map(|id| found(id, Does::Waits, 0, NO_P)).collect();
    let records: Vec<_> = (1..=3000)
        .flat_map(|g| {
            let at = |step: u64| g * SECOND_NS / 300 + step;
            [
                (record(Kind::Ready, at(0), 9, NO_P, g, 0), vec![]),
                (record(Kind::Start, at(1), 10 + (g % 3) as u32, (g % 2) as u16, g, 0), vec![]),
                (record(Kind::End, at(2), 10 + (g % 3) as u32, (g % 2) as u16, g, 0), vec![]),
            ]
        })
        .collect();
    let events = check(&trace(encoder(found), &records)).unwrap();
    assert_eq!(events.iter().filter(|e| e.kind == ev::GO_DESTROY).count(), 3000);
    assert!(events.last().unwrap().generation >= 9);
}

const NAMES: [&[u8]; 4] = [b"a", b"b", b"", b"c"];
static TASKS: AtomicUsize = AtomicUsize::new(100);

fn any_record() -> impl Strategy<Value = (Record, Vec<Record>)> {
    let part = (0_u8..24, 0_u64..400_000_000, 1_u32..5, 0_u16..5, 0_u64..7, 0_u32..4);
    part.prop_map(|(kind, ns, m, p, g, arg)| {
        let p = if p == 4 { NO_P } else { p };
        let mut record = Record { kind, aux: 0, p, m, time: ns, g, arg, stack: arg };
        let mut rest = [Record::default(); MOST_FOLLOWING];
        // A task begins once: its number is new.
        let task = if kind == Kind::TaskBegin as u8 { TASKS.fetch_add(1, StdOrdering::Relaxed) as u64 } else { g };
        let used = if kind >= Kind::TaskBegin as u8 {
            User::pack(task, g, NAMES[arg as usize], b"words", &mut rest)
        } else {
            0
        };
        record.aux = if used == 0 { kind } else { used as u8 };
        (record, rest[..used].to_vec())
    })
}

proptest! {
    /// Records that make no sense together, out of time, of Ms that run others: still a trace.
    #[test]
    fn whatever_is_noted_the_rules_hold(list in proptest::collection::vec(any_record(), 0..200), ready in 0_u64..7) {
        let mut ns = 0;
        let list: Vec<_> = list.into_iter().map(|(mut record, rest)| {
            ns += record.time;
            record.time = ns;
            (record, rest)
        }).collect();
        let all = (1..=ready).map(|id| found(id, [Does::Ready, Does::Runs, Does::Waits][id as usize % 3], 1 + id as u32 / 2, (id % 2) as u16));
        let result = check(&trace(encoder(all.collect()), &list));
        prop_assert!(result.is_ok(), "{:?}\n{:?}", result.err(), list);
    }
}

/// Takes a trace of what `work` does.
fn traced(rt: &'static Runtime, period_ns: u64, work: impl FnOnce(&Trace)) -> Vec<u8> {
    let trace = Trace::begin(rt, false, period_ns).unwrap();
    trace.open(Sink::Memory).unwrap().wait();
    work(&trace);
    trace.close().unwrap().wait();
    let bytes = trace.bytes();
    assert!(trace.outcome().error.is_none());
    trace.ask_to_end().unwrap().wait();
    trace.end();
    bytes
}

#[test]
fn what_goroutines_on_two_ps_do_is_a_trace() {
    const COUNT: usize = 200;
    let rt = runtime(2);
    let done = Arc::new(AtomicUsize::new(0));
    let chan: Arc<Chan<usize>> = Arc::new(Chan::new(1));
    let bytes = traced(rt, 2_000_000, |_| {
        for i in 0..COUNT {
            let (to, done) = (chan.clone(), done.clone());
            go(rt, move || {
                if i.is_multiple_of(2) {
                    let _ = to.send(rt, i, None);
                } else {
                    let _ = to.recv(rt, None);
                    crate::sched::gosched();
                }
                done.fetch_add(1, StdOrdering::SeqCst);
            });
        }
        while done.load(StdOrdering::SeqCst) < COUNT {
            std::thread::yield_now();
        }
    });
    let events = check(&bytes).unwrap();
    assert_eq!(events.iter().filter(|e| e.kind == ev::GO_CREATE).count(), COUNT);
}

#[test]
fn whoever_asks_gets_what_is_held_back() {
    let rt = runtime(1);
    let bytes = traced(rt, SECOND_NS, |_| {
        let session = rt.tracer.session().unwrap();
        let left = record(Kind::Block, session.time(), 7, NO_P, 1_000_000, 0);
        session.ring.lock().put(left.words(), &[], true);
    });
    let events = check(&bytes).unwrap();
    assert!(events.iter().any(|e| (e.kind, e.g) == (ev::GO_BLOCK, 1_000_000)), "{events:?}");
}

#[test]
fn what_is_dropped_is_counted_and_the_rest_is_a_trace() {
    let rt = runtime(1);
    let trace = Trace::begin(rt, false, SECOND_NS).unwrap();
    trace.open(Sink::Memory).unwrap().wait();
    let session = rt.tracer.session().unwrap();
    let before = session.blocks.swap(u32::MAX / 2, StdOrdering::Relaxed); // as if there were so many
    let done = Arc::new(AtomicUsize::new(0));
    let mut made = 0;
    while session.lost.load(StdOrdering::Relaxed) == 0 {
        let done = done.clone();
        go(rt, move || {
            done.fetch_add(1, StdOrdering::SeqCst);
        });
        made += 1;
    }
    session.blocks.store(before, StdOrdering::Relaxed);
    while done.load(StdOrdering::SeqCst) < made {
        std::thread::yield_now();
    }
    trace.close().unwrap().wait();
    check(&trace.bytes()).unwrap();
    assert!(trace.outcome().lost > 0);
    trace.ask_to_end().unwrap().wait();
    trace.end();
}
