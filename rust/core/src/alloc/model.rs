//! Loom: a remote list loses nothing and gives nothing twice; a central list neither, while one thread refills and
//! flushes and others free remotely, whoever settles. Objects carry a witness: who gets one sees what its last user
//! did.

use super::central::{Central, Store};
use super::remote_free::RemoteList;
use super::slots::Slots;
use crate::primitive::Witness;
use loom::sync::Arc;
use loom::thread;
use std::ptr::NonNull;

/// The first word is the list's link.
#[repr(C)]
struct Object {
    link: u64,
    used: Witness,
}

fn object() -> *mut u8 {
    Box::into_raw(Box::new(Object { link: 0, used: Witness::new() })).cast()
}

/// Somebody uses the object: the model fails if that is not ordered after its last use.
fn touch(object: *mut u8) {
    // SAFETY: made by `object`, dropped at the end of the model.
    unsafe { (*object.cast::<Object>()).used.touch() };
}

fn drop_all(mut objects: Vec<*mut u8>, count: usize) {
    objects.sort_unstable();
    objects.dedup();
    assert_eq!(objects.len(), count, "each object is there once");
    for object in objects {
        touch(object);
        // SAFETY: made by `object`, and there once.
        drop(unsafe { Box::from_raw(object.cast::<Object>()) });
    }
}

#[test]
fn remote_list_gives_each_object_once() {
    loom::model(|| {
        let list = Arc::new(RemoteList::new());
        let threads: Vec<_> = (1..3)
            .map(|count| {
                let list = list.clone();
                thread::spawn(move || {
                    for _ in 0..count {
                        let object = object();
                        touch(object);
                        // SAFETY: an object of this thread's own.
                        unsafe { list.push(object) };
                    }
                })
            })
            .collect();
        let mut taken: Vec<_> = list.take_all().inspect(|&o| touch(o)).collect();
        threads.into_iter().for_each(|t| t.join().expect("no panic"));
        taken.extend(list.take_all());
        drop_all(taken, 3);
    });
}

/// Stands for the spans: a stack of objects.
struct Pile(Vec<usize>);

impl Store for Pile {
    fn take(&mut self, out: &mut [*mut u8]) -> usize {
        let count = out.len().min(self.0.len());
        for (slot, address) in out.iter_mut().zip(self.0.drain(..count)) {
            *slot = std::ptr::with_exposed_provenance_mut(address);
        }
        count
    }

    fn give(&mut self, objects: &[*mut u8]) {
        self.0.extend(objects.iter().map(|o| o.expose_provenance()));
    }
}

/// A central list with `objects` in its store and room for one in its transfer stack.
fn central(objects: usize) -> Arc<Central<Pile>> {
    let slots = Box::leak(Box::new([std::ptr::null_mut::<u8>(); 1]));
    // SAFETY: the slots are never freed: a word for each run of the model.
    let transfer = unsafe { Slots::new(NonNull::from(slots).cast(), 1) };
    Arc::new(Central::new(transfer, Pile((0..objects).map(|_| object().expose_provenance()).collect())))
}

/// Takes up to `N` and uses them.
fn take<const N: usize>(central: &Central<Pile>) -> Vec<*mut u8> {
    let mut out = [std::ptr::null_mut(); N];
    let count = central.refill(&mut out);
    out[..count].iter().for_each(|&o| touch(o));
    out[..count].to_vec()
}

#[test]
fn central_list_with_refill_flush_and_remote_frees_loses_nothing() {
    loom::model(|| {
        let central = central(3);
        let remote = central.clone();
        let thread = thread::spawn(move || {
            // Two of them: the second completes a batch, and settles it if the lock is free.
            for object in take::<2>(&remote) {
                // SAFETY: taken by this thread.
                unsafe { remote.free_remote(object) };
            }
        });
        let mine = take::<2>(&central);
        assert!(!mine.is_empty(), "three objects, two of them elsewhere");
        central.flush(&mine);
        thread.join().expect("no panic");
        central.tidy();
        drop_all(take::<4>(&central), 3);
    });
}

#[test]
fn refill_finds_what_was_freed_remotely_before() {
    loom::model(|| {
        let central = central(2);
        let (a, b) = (central.clone(), central.clone());
        let [first, second] = take::<2>(&central)[..] else { panic!("two objects") };
        let addresses = [first, second].map(<*mut u8>::expose_provenance);
        let free = |central: Arc<Central<Pile>>, address: usize| {
            thread::spawn(move || {
                let object = std::ptr::with_exposed_provenance_mut(address);
                touch(object);
                // SAFETY: handed to this thread alone.
                unsafe { central.free_remote(object) };
            })
        };
        let threads = [free(a, addresses[0]), free(b, addresses[1])];
        let early = take::<1>(&central);
        threads.into_iter().for_each(|t| t.join().expect("no panic"));
        let mut all = take::<2>(&central);
        all.extend(early);
        drop_all(all, 2);
    });
}
