//! The cache against a plain one: a list from the newest to the oldest, searched from end to end.

use super::{Cache, Index, NEVER};
use proptest::prelude::*;

/// A key whose hash need not be its own.
type Item = (u64, u64);

fn find(cache: &Cache<Item>, hash: u64, key: u64) -> Option<u32> {
    let mut probe = cache.probe(hash);
    while let Some(slot) = cache.candidate(&mut probe) {
        if cache.item(slot).0 == key {
            return Some(slot);
        }
    }
    None
}

fn add(cache: &mut Cache<Item>, key: u64) {
    assert!(cache.reserve(cache.len() + 1, false));
    cache.insert(key, (key, key), NEVER);
}

fn keys(cache: &Cache<Item>) -> Vec<u64> {
    cache.iter().map(|(key, _)| key).collect()
}

#[test]
fn the_figure_of_the_paper() {
    // Figure 2 of the paper: A, B and G were hit; the hand stands at the oldest.
    let mut cache = Cache::default();
    for key in [b'A', b'B', b'C', b'D', b'E', b'F', b'G'] {
        add(&mut cache, key.into());
    }
    for key in [b'A', b'B', b'G'] {
        let slot = find(&cache, key.into(), key.into()).unwrap();
        cache.touch(slot);
    }
    assert_eq!(cache.evict(), Some((b'C'.into(), b'C'.into())), "A and B are passed over and lose their bits");
    add(&mut cache, b'H'.into());
    let a = find(&cache, b'A'.into(), b'A'.into()).unwrap();
    cache.touch(a);
    assert_eq!(cache.evict(), Some((b'D'.into(), b'D'.into())), "the hand goes on where it was");
    add(&mut cache, b'I'.into());
    add(&mut cache, b'J'.into());
    assert_eq!(cache.evict(), Some((b'E'.into(), b'E'.into())));
}

#[test]
fn an_empty_cache_has_nothing_to_give() {
    let mut cache: Cache<Item> = Cache::default();
    assert!(cache.is_empty() && cache.evict().is_none() && cache.expire(NEVER).is_none());
    assert!(find(&cache, 1, 1).is_none() && cache.iter().next().is_none());
    assert!(cache.reserve(1, true));
    assert!(find(&cache, 1, 1).is_none());
}

#[test]
fn all_visited_means_the_oldest_goes() {
    let mut cache = Cache::default();
    for key in 0..5 {
        add(&mut cache, key);
        let slot = find(&cache, key, key).unwrap();
        cache.touch(slot);
    }
    assert_eq!(cache.evict(), Some((0, 0)));
    assert_eq!(cache.evict(), Some((1, 1)), "the bits are gone");
}

#[test]
fn every_entry_that_comes_or_goes_is_a_new_version() {
    let mut cache = Cache::default();
    let mut seen = vec![cache.version()];
    add(&mut cache, 1);
    seen.push(cache.version());
    let slot = find(&cache, 1, 1).unwrap();
    assert_eq!(cache.replace(slot, (1, 7), NEVER), (1, 1));
    assert_eq!(cache.version(), seen[1], "the slot is the same");
    cache.remove(slot);
    seen.push(cache.version());
    add(&mut cache, 2);
    let taken = cache.take();
    assert!(cache.is_empty() && keys(&taken) == [2]);
    seen.push(cache.version());
    add(&mut cache, 2);
    seen.push(cache.version());
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
}

#[test]
fn room_for_many_is_made_at_once() {
    let mut cache = Cache::default();
    assert!(cache.reserve(3_000, true));
    for key in 0..3_000 {
        cache.insert(key << 40, (key, key), 1_000_000 - key);
    }
    assert!((0..3_000).all(|key| find(&cache, key << 40, key).is_some()));
    assert_eq!(cache.expire(NEVER - 1), Some((2_999, 2_999)));
    assert!(!Index::default().reserve(usize::MAX / 2));
}

#[test]
fn refused_memory_changes_nothing() {
    let mut cache = Cache::default();
    add(&mut cache, 1);
    assert!(!cache.reserve(usize::MAX / 1000, true));
    add(&mut cache, 2);
    assert!(keys(&cache) == [1, 2] && find(&cache, 1, 1).is_some());
}

#[test]
fn slots_of_those_that_left_are_used_again() {
    let mut cache = Cache::default();
    for key in 0..1_000 {
        assert!(cache.reserve(4, true));
        if cache.len() == 4 {
            cache.evict();
        }
        cache.insert(key, (key, key), if key % 3 == 0 { NEVER } else { key });
    }
    assert!(cache.slots.len() == 4 && cache.slots.capacity() < 8);
}

/// What is done: numbers are reduced to what there is.
#[derive(Clone, Debug)]
enum Step {
    Put(u64, u64),
    Get(u64),
    Remove(u64),
    Evict,
    Expire(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..24_u64;
    prop_oneof![
        4 => (key.clone(), 0..6_u64).prop_map(|(key, ttl)| Step::Put(key, ttl)),
        4 => key.clone().prop_map(Step::Get),
        1 => key.prop_map(Step::Remove),
        2 => Just(Step::Evict),
        1 => (0..3_u64).prop_map(Step::Expire),
    ]
}

struct Known {
    item: Item,
    deadline: u64,
    visited: bool,
}

/// Newest first; the hand is a place in it.
#[derive(Default)]
struct Plain {
    list: Vec<Known>,
    hand: Option<usize>,
}

impl Plain {
    fn place(&self, key: u64) -> Option<usize> {
        self.list.iter().position(|known| known.item.0 == key)
    }

    fn remove(&mut self, place: usize) -> Item {
        self.hand = match self.hand {
            Some(hand) if hand >= place => hand.checked_sub(1), // before it, so newer
            hand => hand,
        };
        self.list.remove(place).item
    }

    fn insert(&mut self, known: Known) {
        self.hand = self.hand.map(|hand| hand + 1);
        self.list.insert(0, known);
    }

    fn evict(&mut self) -> Option<Item> {
        let last = self.list.len().checked_sub(1)?;
        let mut at = self.hand.unwrap_or(last);
        while std::mem::take(&mut self.list[at].visited) {
            at = at.checked_sub(1).unwrap_or(last);
        }
        self.hand = Some(at);
        Some(self.remove(at))
    }

    fn expire(&mut self, now: u64) -> Option<Item> {
        let (place, known) = self.list.iter().enumerate().min_by_key(|(_, known)| known.deadline)?;
        (known.deadline <= now).then(|| self.remove(place))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn does_what_the_plain_one_does(steps in prop::collection::vec(step(), 1..300), alike in 0..3_u32) {
        // Hashes that differ, hashes of which many are equal, hashes that differ in their highest bits only.
        let hash = |key: u64| [key, key % 3, key << 60][alike as usize];
        let (mut cache, mut plain) = (Cache::default(), Plain::default());
        // Deadlines are even and times odd, and each deadline comes once, so that the order is told.
        let mut now = 1;
        for (n, step) in steps.into_iter().enumerate() {
            let n = n as u64;
            match step {
                Step::Put(key, ttl) => {
                    let deadline = if ttl == 0 { NEVER } else { (now - 1 + ttl * 1000) * 1000 + 2 * n };
                    prop_assert!(cache.reserve(cache.len() + 1, deadline != NEVER));
                    match (find(&cache, hash(key), key), plain.place(key)) {
                        (Some(slot), Some(place)) => {
                            let old = cache.replace(slot, (key, n), deadline);
                            let known = Known { item: (key, n), deadline, visited: true };
                            prop_assert_eq!(old, std::mem::replace(&mut plain.list[place], known).item);
                        }
                        (None, None) => {
                            cache.insert(hash(key), (key, n), deadline);
                            plain.insert(Known { item: (key, n), deadline, visited: false });
                        }
                        _ => prop_assert!(false, "one has {}, the other has not", key),
                    }
                }
                Step::Get(key) => {
                    let slot = find(&cache, hash(key), key);
                    let place = plain.place(key);
                    prop_assert_eq!(slot.map(|slot| cache.item(slot)), place.map(|place| plain.list[place].item));
                    if let (Some(slot), Some(place)) = (slot, place) {
                        prop_assert_eq!(cache.deadline_ns(slot), plain.list[place].deadline);
                        cache.touch(slot);
                        plain.list[place].visited = true;
                    }
                }
                Step::Remove(key) => {
                    let slot = find(&cache, hash(key), key);
                    let gone = plain.place(key).map(|place| plain.remove(place));
                    prop_assert_eq!(slot.map(|slot| cache.remove(slot)), gone);
                }
                Step::Evict => prop_assert_eq!(cache.evict(), plain.evict()),
                Step::Expire(passed) => {
                    now += 1000 * passed;
                    prop_assert_eq!(cache.expire(now * 1000), plain.expire(now * 1000));
                }
            }
            prop_assert_eq!(cache.len(), plain.list.len());
            prop_assert_eq!(cache.has_deadlines(), plain.list.iter().any(|known| known.deadline != NEVER));
            let all: Vec<u64> = plain.list.iter().rev().map(|known| known.item.0).collect();
            prop_assert_eq!(keys(&cache), all);
        }
    }
}
