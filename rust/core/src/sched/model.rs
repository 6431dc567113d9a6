//! Loom: the run queues, the wake rule, and the way from park to ready. Real code; only what a model cannot run, the
//! switch of stacks, is left out: a model thread is an M on its g0, and its goroutine "leaves" by `settle`.

use super::config::Config;
use super::inject_queue::InjectQueue;
use super::local_queue::LocalQueue;
use super::machine::{Action, Machine};
use super::{Runtime, announce, ready_wait};
use crate::context;
use crate::goroutine::host::{Host, null_host};
use crate::goroutine::waiter::{Node, Outcome, Wait, WaitQueue, Who};
use crate::goroutine::{Bundle, Goroutine, status};
use crate::netpoll::{Event, Side};
use crate::primitive::Witness;
use crate::primitive::atomic::Ordering;
use crate::primitive::exclusive::ShortLock;
use loom::sync::Arc;
use loom::thread::{self, JoinHandle};
use std::mem::MaybeUninit;
use std::ptr;

/// A queued thing: whoever takes it writes it, so that two takers, or one that does not see it whole, are a race.
struct Item {
    id: usize,
    witness: Witness,
}

/// What was taken; ids only, checked at the end.
type Taken = Vec<usize>;

fn item(id: usize) -> *mut Item {
    Box::into_raw(Box::new(Item { id, witness: Witness::new() }))
}

fn take(item: *mut Item) -> usize {
    // SAFETY: taken from a queue, which gives each item to one taker; a second one is what the witness reports.
    unsafe {
        (*item).witness.touch();
        (*item).id
    }
}

fn drain(queue: &LocalQueue<Item>, taken: &mut Taken) {
    while let Some((item, _)) = queue.pop() {
        taken.push(take(item));
    }
}

fn push(queue: &LocalQueue<Item>, id: usize, taken: &mut Taken) {
    queue.push_back(item(id), |batch| taken.extend(batch.iter().copied().map(take)));
}

fn thief(victim: &Arc<LocalQueue<Item>>, own: &Arc<LocalQueue<Item>>, take_next: bool) -> JoinHandle<Taken> {
    let (victim, own) = (victim.clone(), own.clone());
    thread::spawn(move || {
        let mut taken = Taken::new();
        if let Some(item) = victim.steal_into(&own, take_next) {
            taken.push(take(item));
        }
        drain(&own, &mut taken);
        taken
    })
}

fn assert_once(mut taken: Taken, others: impl IntoIterator<Item = JoinHandle<Taken>>, count: usize) {
    others.into_iter().for_each(|t| taken.extend(t.join().expect("no panic")));
    taken.sort_unstable();
    assert_eq!(taken, (0..count).collect::<Vec<_>>());
}

#[test]
fn queue_gives_each_item_once_to_its_owner_and_a_thief() {
    loom::model(|| {
        let (queue, own) = (Arc::new(LocalQueue::new()), Arc::new(LocalQueue::new()));
        let mut taken = Taken::new();
        push(&queue, 0, &mut taken);
        let thief = thief(&queue, &own, false);
        push(&queue, 1, &mut taken);
        push(&queue, 2, &mut taken);
        drain(&queue, &mut taken);
        assert_once(taken, [thief], 3);
    });
}

#[test]
fn queue_overflowing_while_a_thief_steals_loses_and_doubles_nothing() {
    loom::model(|| {
        let (queue, own) = (Arc::new(LocalQueue::new()), Arc::new(LocalQueue::new()));
        let mut taken = Taken::new();
        (0..3).for_each(|id| push(&queue, id, &mut taken));
        let thief = thief(&queue, &own, true);
        (3..7).for_each(|id| push(&queue, id, &mut taken));
        drain(&queue, &mut taken);
        assert_once(taken, [thief], 7);
    });
}

#[test]
fn queue_robbed_by_two_thieves_gives_each_item_once() {
    loom::model(|| {
        let queue = Arc::new(LocalQueue::new());
        let mut taken = Taken::new();
        (0..3).for_each(|id| push(&queue, id, &mut taken));
        let thieves = [thief(&queue, &Arc::new(LocalQueue::new()), false), thief(&queue, &Arc::default(), false)];
        drain(&queue, &mut taken);
        assert_once(taken, thieves, 3);
    });
}

#[test]
fn queue_of_a_thief_may_be_robbed_while_it_is_filled() {
    loom::model(|| {
        let (queue, first) = (Arc::new(LocalQueue::new()), Arc::new(LocalQueue::new()));
        let mut taken = Taken::new();
        (0..4).for_each(|id| push(&queue, id, &mut taken));
        let thieves = [thief(&queue, &first, false), thief(&first, &Arc::default(), false)];
        drain(&queue, &mut taken);
        let [a, b] = thieves;
        taken.extend(a.join().expect("no panic"));
        taken.extend(b.join().expect("no panic"));
        drain(&first, &mut taken);
        assert_once(taken, [], 4);
    });
}

#[test]
fn queue_next_slot_goes_to_its_owner_or_a_thief() {
    loom::model(|| {
        let (queue, own) = (Arc::new(LocalQueue::new()), Arc::new(LocalQueue::new()));
        let mut taken = Taken::new();
        assert!(queue.push_next(item(0)).is_none());
        let thief = thief(&queue, &own, true);
        if let Some(kicked) = queue.push_next(item(1)) {
            queue.push_back(kicked, |_| panic!("there is room"));
        }
        drain(&queue, &mut taken);
        assert_once(taken, [thief], 2);
    });
}

#[test]
fn global_queue_gives_each_item_once_and_its_length_ends_right() {
    loom::model(|| {
        let queue = Arc::new(InjectQueue::new());
        queue.push(item(0));
        let other = queue.clone();
        let thread = thread::spawn(move || {
            other.push_batch(&[item(1), item(2)]);
            other.pop().into_iter().map(take).collect()
        });
        let mut places = [const { MaybeUninit::uninit() }; 2];
        let taken: Taken = queue.pop_batch(&mut places).iter().copied().map(take).collect();
        let mut rest: Taken = thread.join().expect("no panic");
        rest.extend(taken);
        while let Some(item) = queue.pop() {
            rest.push(take(item));
        }
        assert!(queue.is_empty());
        assert_once(rest, [], 3);
    });
}

static HOST: Host = null_host();

/// A runtime that starts no threads: its Ms are the model's.
fn runtime(processors: usize) -> &'static Runtime {
    let config = Config { processors, max_machines: 0, seed: 1, ..Config::default() };
    Runtime::new(config, &HOST).expect("a runtime")
}

/// An M for the calling model thread, with a P.
fn machine(rt: &'static Runtime, id: u32) -> *mut Machine {
    let m = Machine::new(rt, id);
    // SAFETY: the M is this thread's, and never freed.
    unsafe {
        (*m).home = ptr::dangling_mut();
        (*m).current_host = (*m).home;
        context::current_set(m.cast());
        assert!((*m).acquire_idle_processor());
    }
    m
}

fn goroutine(rt: &'static Runtime) -> usize {
    rt.registry.take(ptr::null_mut(), rt).expose_provenance()
}

/// The M looks for one goroutine as `search` does, and sleeps when there is none. Returns it.
///
/// # Safety
/// `m` is the calling thread's.
unsafe fn find_one(m: *mut Machine) -> *mut Goroutine {
    // SAFETY: the caller's promise.
    unsafe {
        loop {
            if (*m).rt.requests.load(Ordering::Relaxed) != 0 {
                (*m).rt.serve_requests();
            }
            if (*m).p().is_null() && !(*m).acquire_idle_processor() {
                (*m).sleep_without_work();
                continue;
            }
            if let Some((g, _)) = (*(*m).p()).queue.pop() {
                return g;
            }
            if let Some(g) = (*m).rt.inject.pop() {
                return g;
            }
            for victim in (*m).rt.processors.iter().filter(|v| !ptr::eq(*v, (*m).p())) {
                if let Some(g) = victim.queue.steal_into(&(*(*m).p()).queue, true) {
                    return g;
                }
            }
            if !(*m).release_and_recheck() {
                (*m).sleep_without_work();
            }
        }
    }
}

#[test]
fn work_put_on_the_global_queue_wakes_an_m_that_goes_to_sleep() {
    loom::model(|| {
        let rt = runtime(1);
        let g = goroutine(rt);
        let sleeper = thread::spawn(move || {
            let m = machine(rt, 1);
            // SAFETY: this thread's M.
            assert_eq!(unsafe { find_one(m) }.addr(), g);
        });
        // SAFETY: a new goroutine, on no queue.
        unsafe { rt.inject_goroutine(ptr::with_exposed_provenance_mut(g)) };
        sleeper.join().expect("no panic");
    });
}

#[test]
fn work_put_on_a_local_queue_wakes_an_m_that_goes_to_sleep() {
    loom::model(|| {
        let rt = runtime(2);
        let g = goroutine(rt);
        let busy = machine(rt, 1);
        let sleeper = thread::spawn(move || {
            let m = machine(rt, 2);
            // SAFETY: this thread's M.
            assert_eq!(unsafe { find_one(m) }.addr(), g);
        });
        // SAFETY: a new goroutine, on no queue; enqueued by the busy M's own thread, which then runs something long.
        unsafe {
            assert!(!(*busy).p().is_null());
            rt.enqueue(ptr::with_exposed_provenance_mut(g));
        }
        sleeper.join().expect("no panic");
    });
}

/// A goroutine parked until descriptor `fd` can be read; what it waits with is never freed. Returns its address.
fn parked_reader(rt: &'static Runtime, fd: i32) -> usize {
    let g: *mut Goroutine = ptr::with_exposed_provenance_mut(goroutine(rt));
    let wait: *mut Wait = Box::leak(Box::new(Wait::new()));
    let node = Box::leak(Box::new(Node::new(wait, ptr::null_mut())));
    let desc = rt.net.desc(fd).expect("every number is a descriptor in a model");
    // SAFETY: leaked; nobody else knows them yet.
    unsafe {
        (*wait).who = Who::Goroutine(g);
        (*g).status.store(status::WAITING, Ordering::Release);
        assert!(rt.net.enqueue(desc, Side::Read, node, 0, || 0));
    }
    g.addr()
}

fn readable(rt: &'static Runtime, fd: u64) {
    rt.net.model_poller().post(Event { tag: fd, readable: true, ..Event::default() });
}

#[test]
fn work_put_on_the_global_queue_wakes_an_m_that_goes_to_sleep_in_the_poller() {
    loom::model(|| {
        let rt = runtime(1);
        parked_reader(rt, 0);
        let g = goroutine(rt);
        let sleeper = thread::spawn(move || {
            let m = machine(rt, 1);
            // SAFETY: this thread's M.
            assert_eq!(unsafe { find_one(m) }.addr(), g);
        });
        // SAFETY: a new goroutine, on no queue.
        unsafe { rt.inject_goroutine(ptr::with_exposed_provenance_mut(g)) };
        sleeper.join().expect("no panic");
    });
}

#[test]
fn event_wakes_an_m_that_goes_to_sleep_in_the_poller() {
    loom::model(|| {
        let rt = runtime(1);
        let g = parked_reader(rt, 0);
        let sleeper = thread::spawn(move || {
            let m = machine(rt, 1);
            // SAFETY: this thread's M.
            assert_eq!(unsafe { find_one(m) }.addr(), g);
        });
        readable(rt, 0);
        sleeper.join().expect("no panic");
    });
}

/// Another thread looks at the poller meanwhile, as a busy M and sysmon do: it must not take the sleeper's wake-up, and
/// what it finds must not be lost.
#[test]
fn event_and_work_reach_a_sleeping_m_while_another_thread_looks() {
    loom::model(|| {
        let rt = runtime(1);
        let reader = parked_reader(rt, 0);
        let other = goroutine(rt);
        let sleeper = thread::spawn(move || {
            let m = machine(rt, 1);
            // SAFETY: this thread's M.
            let mut found = unsafe { [find_one(m).addr(), find_one(m).addr()] };
            let mut wanted = [reader, other];
            found.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(found, wanted);
        });
        let look = || {
            let mut events = [Event::default(); 2];
            let count = rt.net.poll(Some(0), &mut events).expect("a poller");
            rt.leave_events(&events[..count]);
        };
        readable(rt, 0);
        look();
        // SAFETY: a new goroutine, on no queue.
        unsafe { rt.inject_goroutine(ptr::with_exposed_provenance_mut(other)) };
        look();
        sleeper.join().expect("no panic");
    });
}

/// Two Ms and one P: whoever sits in the poller may find that the other has the P.
#[test]
fn event_for_an_m_without_a_p_is_left_to_the_one_that_has_it() {
    loom::model(|| {
        let rt = runtime(1);
        parked_reader(rt, 0);
        let sleeper = thread::spawn(move || {
            let m = Machine::new(rt, 1);
            // SAFETY: the M is this thread's, and never freed.
            unsafe {
                (*m).home = ptr::dangling_mut();
                (*m).current_host = (*m).home;
                context::current_set(m.cast());
                let g = find_one(m);
                let p = (*m).processor.swap(ptr::null_mut(), Ordering::Relaxed);
                rt.put_idle_processor(&*p);
                rt.wake_one(ptr::null_mut());
                g.addr()
            }
        });
        let g = goroutine(rt);
        // The P was taken by a thread that computes, while an event comes and a goroutine is spawned.
        let m = Machine::new(rt, 2);
        // SAFETY: the M is this thread's, and never freed.
        unsafe {
            (*m).home = ptr::dangling_mut();
            (*m).current_host = (*m).home;
            context::current_set(m.cast());
            readable(rt, 0);
            rt.inject_goroutine(ptr::with_exposed_provenance_mut(g));
            let mine = find_one(m).addr();
            let p = (*m).processor.swap(ptr::null_mut(), Ordering::Relaxed);
            rt.put_idle_processor(&*p);
            rt.wake_one(ptr::null_mut());
            assert_ne!(mine, sleeper.join().expect("no panic"));
        }
    });
}

/// What a goroutine has that ran before; no stack, which a model does not switch.
fn bundle() -> *mut Bundle {
    Box::into_raw(Box::new(Bundle::on_thread(ptr::dangling_mut(), 0)))
}

/// What a goroutine and its waker share: the wait on the goroutine's stack, and the queue it stands in.
struct Parked {
    wait: Wait,
    node: Node,
    queue: ShortLock<WaitQueue>,
}

#[test]
fn goroutine_parked_on_one_m_and_readied_by_a_thread_is_queued_once() {
    loom::model(|| {
        let rt = runtime(1);
        let g: *mut Goroutine = ptr::with_exposed_provenance_mut(goroutine(rt));
        let parked = Box::into_raw(Box::new(Parked {
            wait: Wait::new(),
            node: Node::new(ptr::null_mut(), ptr::null_mut()),
            queue: ShortLock::new(WaitQueue::new()),
        }));
        let address = parked.expose_provenance();
        let waker = thread::spawn(move || {
            let parked: *mut Parked = ptr::with_exposed_provenance_mut(address);
            // SAFETY: the box lives to the end of the model; the wait is claimed, once, under its queue's lock.
            unsafe {
                let node = (*parked).queue.lock().claim_front(Outcome::Delivered);
                if !node.is_null() {
                    ready_wait(&*(*node).wait);
                }
                !node.is_null()
            }
        });
        let m = machine(rt, 1);
        // SAFETY: this thread's M and goroutine; `settle` is what g0 does with a goroutine that left its stack.
        let claimed = unsafe {
            (*g).bundle = bundle();
            (*m).current = g;
            (*parked).node.wait = &raw mut (*parked).wait;
            announce(&mut (*parked).wait);
            (*parked).queue.lock().push_back(&raw mut (*parked).node);
            (*m).previous = (*m).current;
            (*m).action = Action::Park;
            (*m).settle((*m).home);
            waker.join().expect("no panic")
        };
        // SAFETY: all other threads are done.
        unsafe {
            let queued = (*(*m).p()).queue.len() + rt.inject.len();
            let status = (*g).status.load(Ordering::Acquire);
            assert_eq!((queued, status), if claimed { (1, status::RUNNABLE) } else { (0, status::WAITING) });
            drop(Box::from_raw(parked));
        }
    });
}
