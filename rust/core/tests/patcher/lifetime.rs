//! Objects that come and go, copies of one library, and threads that call while entries change.

use crate::hook;
use crate::made::{Folder, HOOKED, Library, call_at, object_at, patch};
use gort_core::boundary::elf::loads;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn test_unloaded_object_undo_touches_nothing() {
    hook!(HOOK);
    let folder = Folder::new("unloaded");
    let (_provider, client) = folder.pair("unloaded_target", &[]);
    let (mut patched, _) = patch(&client.object(), c"unloaded_target", &HOOK);
    let path = client.path.clone();
    drop(client);
    assert!(object_at(&path).is_none());
    assert!(!patched.is_in_place());
    assert_eq!(patched.reapply().expect("nothing to do"), 0);
    let undone = patched.undo().expect("nothing to do");
    assert!(undone.is_unloaded);
    assert_eq!(undone.restored_count, 0);
}

#[test]
fn test_object_loaded_again_is_not_taken_for_the_patched_one() {
    hook!(HOOK);
    let folder = Folder::new("again");
    let (_provider, client) = folder.pair("again_target", &["-Wl,-z,lazy"]);
    let path = client.path.clone();
    let (mut patched, _) = patch(&client.object(), c"again_target", &HOOK);
    drop(client);
    let client = Library::open(&path, 0); // at the same place or another
    assert!(!patched.is_in_place());
    assert_eq!(patched.reapply().expect("writable"), 0);
    assert_eq!(patched.undo().expect("writable").restored_count, 0);
    assert_eq!((client.call(1), HOOK.hits()), (2, 0));
}

#[test]
fn test_kept_object_outlives_its_dlclose_until_undo() {
    hook!(HOOK);
    let folder = Folder::new("kept");
    let (_provider, client) = folder.pair("kept_target", &["-Wl,-z,now"]);
    let (mut patched, _) = patch(&client.object(), c"kept_target", &HOOK);
    patched.keep_loaded().expect("loaded");
    let (path, call) = (client.path.clone(), client.address(c"call"));
    drop(client);
    assert!(object_at(&path).is_some());
    assert_eq!(call_at(call, 1), 2 + HOOKED);
    let undone = patched.undo().expect("writable");
    assert_eq!((undone.restored_count, undone.is_unloaded), (1, false));
    assert!(object_at(&path).is_none(), "undo gives the reference back");
}

#[test]
fn test_loads_are_counted() {
    let folder = Folder::new("loads");
    let path = folder.build("loads", "int call(int x) { return x; }", &[]);
    let before = loads();
    let library = Library::open(&path, 0);
    let open = loads();
    assert!(open.added > before.added);
    drop(library);
    assert!(loads().removed > before.removed);
}

#[test]
fn test_two_copies_of_a_library_are_two_objects() {
    hook!(FIRST);
    hook!(SECOND);
    let folder = Folder::new("copies");
    let (_provider, first) = folder.pair("copies_target", &["-Wl,-soname,libsame.so"]);
    let copy = folder.0.join("libcopy-1a2b3c.so");
    std::fs::copy(&first.path, &copy).expect("a copy");
    let second = Library::open(&copy, 0);
    let (mut first_patch, _) = patch(&first.object(), c"copies_target", &FIRST);
    assert_eq!((first.call(1), second.call(1)), (2 + HOOKED, 2));
    let (mut second_patch, _) = patch(&second.object(), c"copies_target", &SECOND);
    assert_eq!((first.call(1), second.call(1)), (2 + HOOKED, 2 + HOOKED));
    assert_eq!((FIRST.hits(), SECOND.hits()), (2, 1));
    assert_eq!(first_patch.undo().expect("writable").restored_count, 1);
    assert_eq!((first.call(1), second.call(1)), (2, 2 + HOOKED));
    assert_eq!(second_patch.undo().expect("writable").restored_count, 1);
}

/// Calls until told to stop; every result is the original's or the hook's.
fn hammer(library: &Library, stop: &AtomicBool, started: &AtomicBool) -> usize {
    let call = library.address(c"call");
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let result = call_at(call, 1);
        assert!(result == 2 || result == 2 + HOOKED, "{result}");
        count += 1;
        started.store(true, Ordering::Relaxed);
    }
    count
}

#[test]
fn test_thread_that_calls_all_the_while_sees_one_or_the_other() {
    hook!(HOOK);
    let folder = Folder::new("hammer");
    for arguments in ["-Wl,-z,lazy,-z,norelro", "-Wl,-z,now,-z,relro"] {
        let (_provider, client) = folder.pair("hammer_target", &[arguments]);
        let object = client.object();
        let (stop, started) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| hammer(&client, &stop, &started));
            while !started.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            for _ in 0..1000 {
                let (mut patched, left) = patch(&object, c"hammer_target", &HOOK);
                assert!(left.is_empty() && patched.is_in_place());
                assert_eq!(patched.undo().expect("writable").restored_count, 1);
            }
            // Once more, until the thread has been there: the rounds above may all fall between two of its turns.
            let (mut patched, _) = patch(&object, c"hammer_target", &HOOK);
            let hits = HOOK.hits();
            while HOOK.hits() == hits {
                std::thread::yield_now();
            }
            patched.undo().expect("writable");
            stop.store(true, Ordering::Relaxed);
            assert!(thread.join().expect("only two results") > 0);
        });
    }
}

#[test]
fn test_first_calls_while_it_is_patched_end_at_the_hook() {
    hook!(HOOK);
    let folder = Folder::new("first");
    for _ in 0..100 {
        // Loaded anew, so that the thread's first call goes through the resolver while the slot changes.
        let (_provider, client) = folder.pair_once("first_target", &["-Wl,-z,lazy"]);
        let object = client.object();
        let (stop, started) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| hammer(&client, &stop, &started));
            let (patched, left) = patch(&object, c"first_target", &HOOK);
            assert!(left.is_empty());
            while !started.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            // The thread is past its first call, so no resolver is at work any more and one repair is for good.
            patched.reapply().expect("writable");
            assert!(patched.is_in_place());
            let hits = HOOK.hits();
            while HOOK.hits() == hits {
                std::thread::yield_now();
            }
            assert!(patched.is_in_place());
            stop.store(true, Ordering::Relaxed);
        });
    }
}
