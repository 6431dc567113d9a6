//! Loom: the spin lock keeps its holders apart, a state word is changed by one.

use super::Witness;
use super::atomic::AtomicU32;
use super::exclusive::change_u32;
use super::spin_lock::SpinLock;
use loom::sync::Arc;
use loom::thread;

#[test]
fn spin_lock_keeps_two_holders_apart() {
    loom::model(|| {
        let shared = Arc::new((SpinLock::new(), Witness::new()));
        let hold = |s: &(SpinLock, Witness)| {
            s.0.acquire();
            s.1.touch();
            s.0.release();
        };
        let other = shared.clone();
        let thread = thread::spawn(move || hold(&other));
        hold(&shared);
        thread.join().expect("no panic");
        hold(&shared);
    });
}

#[test]
fn state_word_is_changed_by_exactly_one_of_three() {
    loom::model(|| {
        let word = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (1..3)
            .map(|to| {
                let word = word.clone();
                thread::spawn(move || u32::from(change_u32(&word, 0, to)))
            })
            .collect();
        let mine = u32::from(change_u32(&word, 0, 3));
        let others: u32 = threads.into_iter().map(|t| t.join().expect("no panic")).sum();
        assert_eq!(mine + others, 1);
    });
}
