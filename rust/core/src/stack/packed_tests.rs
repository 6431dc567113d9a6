//! Packed stacks come back whole, and what is kept of them is found.

use super::packed::{MOST, Packed, Packing};
use proptest::prelude::*;

/// A stack of these words, packed with those ranges kept: the object and where each kept word is in it.
fn pack(stack: &[u64], keep: &[(usize, usize)]) -> Vec<u64> {
    let from = stack.as_ptr().expose_provenance();
    // SAFETY: the words are there.
    let mut packing = unsafe { Packing::of(from, size_of_val(stack)) };
    for &(at, bytes) in keep {
        packing.keep(from.wrapping_add_signed(at as isize), bytes);
    }
    let mut object = vec![u64::MAX; packing.object_bytes() / 8];
    // SAFETY: the object is of that size.
    let packed = unsafe { packing.pack(object.as_mut_ptr().cast()) };
    assert_eq!(packed.object_bytes(), size_of_val(&object[..]));
    object
}

fn word() -> impl Strategy<Value = u64> {
    prop_oneof![3 => Just(0u64), 2 => 1..=u64::MAX]
}

proptest! {
    /// What comes back is what was there, on a stack that others have written meanwhile.
    #[test]
    fn comes_back(stack in prop::collection::vec(word(), 0..=MOST / 8), keep in prop::collection::vec((0..MOST, 0usize..300), 0..4)) {
        let mut again = stack.clone();
        let object = pack(&stack, &keep);
        again.fill(7);
        let from = again.as_mut_ptr().expose_provenance();
        // SAFETY: packed above; where it comes back to has as many words.
        unsafe { Packed::at(object.as_ptr().cast(), from, size_of_val(&stack[..])).unpack() };
        prop_assert_eq!(&again, &stack);
        let zeros = stack.iter().filter(|&&word| word == 0).count();
        prop_assert!(object.len() >= stack.len() - zeros + stack.len().div_ceil(64));
    }

    /// Each byte of what is kept is found in the object, next to its neighbours, and leads back; other addresses stay themselves.
    #[test]
    fn leads_there_and_back(stack in prop::collection::vec(word(), 1..400), first in 0usize..400, bytes in 0usize..200) {
        let (from, size) = (stack.as_ptr().expose_provenance(), size_of_val(&stack[..]));
        let object = pack(&stack, &[(first * 8, bytes)]);
        // SAFETY: packed above.
        let packed = unsafe { Packed::at(object.as_ptr().cast(), from, size) };
        for offset in 0..size {
            let (at, found) = (from + offset, packed.in_object(from + offset));
            let kept = stack[offset / 8] != 0 || (first * 8..(first * 8 + bytes).next_multiple_of(8)).contains(&offset) && bytes > 0;
            prop_assert_eq!(found != at, kept);
            if kept {
                let index = (found - object.as_ptr().addr()) / 8;
                prop_assert_eq!((object[index], found % 8), (stack[offset / 8], at % 8));
                prop_assert_eq!(packed.on_stack(found), at);
            }
        }
        if first * 8 < size {
            let start = packed.in_object(from + first * 8);
            for offset in 0..bytes.min(size - first * 8) {
                prop_assert_eq!(packed.in_object(from + first * 8 + offset), start + offset);
            }
        }
        for outside in [0, from - 1, from + size, usize::MAX] {
            prop_assert_eq!(packed.in_object(outside), outside);
        }
        let lines = object.as_ptr().addr();
        for outside in [0, lines, lines - 1, lines + size_of_val(&object[..]), usize::MAX] {
            prop_assert_eq!(packed.on_stack(outside), outside);
        }
    }
}

#[test]
fn keeps_what_reaches_over_its_ends() {
    let stack = [0u64; 130];
    assert_eq!(pack(&stack, &[]), [0; 3]);
    assert_eq!(pack(&stack, &[(0usize.wrapping_sub(16), 24)]), [1, 0, 0, 0]);
    assert_eq!(pack(&stack, &[(129 * 8, 1 << 20)]), [0, 0, 2, 0]);
    assert_eq!(pack(&stack, &[(130 * 8, 128), (0usize.wrapping_sub(128), 128)]), [0; 3]);
}
