//! Boxes where memory may be refused: std's end the process then.

use std::alloc::{Layout, alloc};

/// A box with `value`; `None`: memory is refused.
pub fn try_box<T>(value: T) -> Option<Box<T>> {
    if size_of::<T>() == 0 {
        return Some(Box::new(value)); // which needs none
    }
    // SAFETY: a layout of some bytes; what is written to is new, and of it.
    unsafe {
        let place = alloc(Layout::new::<T>()).cast::<T>();
        if place.is_null() {
            return None;
        }
        place.write(value);
        Some(Box::from_raw(place))
    }
}
