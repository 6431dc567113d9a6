//! A library's thread-locals, asked for as compiled code asks.

use super::{LIMIT, RUNTIME, gosched_detached, start, wait_until};
use crate::boundary::hooks::original;
use crate::boundary::locals;
use crate::sched::current_machine;
use crate::sys::{loader, tls};
use libc::c_void;
use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::{LazyLock, Mutex};

static ENDED: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// Notes the number in an object that ends.
unsafe extern "C" fn note_end(object: *mut c_void) {
    // SAFETY: the test's object, in a block that is there until its destructors have run.
    ENDED.lock().expect("no panic").push(unsafe { object.cast::<usize>().read() });
}

#[test]
fn thread_locals_are_each_goroutines_own_and_keep_it_on_its_m() {
    LazyLock::force(&RUNTIME);
    // The program may have no libstdc++, whose function this one stands behind.
    let register = loader::symbol(c"__cxa_thread_atexit_impl", None).expect("glibc's");
    original::__cxa_thread_atexit::ADDRESS.store(register, Ordering::SeqCst);
    let has_room = |block: &tls::Block| block.bytes >= size_of::<usize>();
    let mut blocks = Vec::new();
    tls::blocks(&mut blocks);
    let block = blocks.into_iter().find(has_room).expect("thread-locals of some object");
    let place = move || locals::Place { module: block.module, offset: 0 };
    let own = move || {
        // SAFETY: a block of at least a word, of an object that stays loaded.
        unsafe {
            let mine = locals::tls_get_addr(&place());
            mine.cast::<usize>().write(mine.addr());
            assert_eq!(locals::cxa_thread_atexit(note_end, mine, ptr::null_mut()), 0);
            gosched_detached();
            assert_eq!((locals::tls_get_addr(&place()), mine.cast::<usize>().read()), (mine, mine.addr()));
            let wired = (*(*(*current_machine()).current).bundle).wired;
            (mine.addr(), wired)
        }
    };
    let (first, second) = (start(own), start(own));
    let ends = [first, second].map(|end| end.recv_timeout(LIMIT).expect("the goroutine ends in time"));
    assert_eq!(ends.map(|(_, wired)| wired), [1, 1]);
    // SAFETY: as above; this is a thread.
    assert_eq!(unsafe { locals::tls_get_addr(&place()) }.addr(), block.start);
    assert!(ends.iter().all(|(mine, _)| *mine != block.start));
    let has_ended = |(mine, _): &(usize, u8)| ENDED.lock().expect("no panic").contains(mine);
    wait_until(|| ends.iter().all(has_ended));
}
