//! Size classes: what requests are rounded up to, and how each class is cut from pages and moved in batches.
//!
//! 8 bytes; every 16 up to 128; then eight steps per doubling up to 32 KiB. So every class from 16 up keeps objects
//! 16-aligned, and from 128 up the waste of a request, (class - request) / class, stays below an eighth. The tables are
//! made at compile time from the constants below; two small ones take a size to its class, as in TCMalloc's `SizeMap`
//! and Go's `sizeclasses.go`. Class 0 stands for what has no class: larger requests, and pages that hold none.

use super::span::{MAX_OBJECTS, PAGE_BYTES};

/// The largest request that has a class, in bytes.
pub const MAX_SMALL_BYTES: usize = 32 << 10;
/// Classes, with class 0.
pub const CLASSES: usize = 74;

/// Up to here steps are of 16 bytes.
const LINEAR_BYTES: usize = 128;
/// Steps per doubling above; 8 keep the waste at 1/9 of a class.
const STEPS: usize = 8;
/// Most pages of a span: enough for any class to fill a span up to 1/16, and for four objects of the largest.
const MAX_SPAN_PAGES: usize = 16;
/// A span holds at least so many objects, or each of the largest would cost its own turn at the page heap.
const MIN_OBJECTS: usize = 4;
/// A span's tail is at most this part of it.
const TAIL_PART: usize = 16;
/// Bytes moved between a cache and the central list at once, and the most objects: a consumer and a producer then pay
/// two lock operations for 128 small objects. `benches/alloc.rs` would move both.
const BATCH_BYTES: usize = 64 << 10;
const MAX_BATCH: usize = 128;
/// A cache keeps at most so many batches of a class.
const CACHED_BATCHES: usize = 4;
/// Objects of one class that a cache keeps at most.
pub(super) const MAX_CACHED: usize = MAX_BATCH * CACHED_BATCHES;
/// Requests up to here are looked up by eighths, larger ones by 128ths.
const FINE_BYTES: usize = 1024;
const COARSE_STEP: usize = 128;

/// One class.
#[derive(Debug, Clone, Copy)]
pub struct SizeClass {
    /// Bytes of an object.
    pub bytes: u32,
    /// Pages of a span.
    pub pages: u32,
    /// Objects of a span.
    pub objects: u32,
    /// Objects moved between a cache and the central list at once.
    pub batch: u32,
    /// Objects a cache keeps at most.
    pub cached_max: u32,
    /// 2^32 / bytes, rounded up: a multiplication in place of a division by `bytes`.
    reciprocal: u32,
}

impl SizeClass {
    const NONE: Self = Self { bytes: 0, pages: 0, objects: 0, batch: 0, cached_max: 0, reciprocal: 0 };

    const fn new(bytes: usize) -> Self {
        let mut pages = 1;
        while pages * PAGE_BYTES / bytes < MIN_OBJECTS || (pages * PAGE_BYTES) % bytes * TAIL_PART > pages * PAGE_BYTES
        {
            pages += 1;
        }
        let objects = pages * PAGE_BYTES / bytes;
        assert!(pages <= MAX_SPAN_PAGES && objects <= MAX_OBJECTS);
        let batch = if BATCH_BYTES / bytes > MAX_BATCH { MAX_BATCH } else { BATCH_BYTES / bytes };
        Self {
            bytes: bytes as u32,
            pages: pages as u32,
            objects: objects as u32,
            batch: batch as u32,
            cached_max: (batch * CACHED_BATCHES) as u32,
            reciprocal: (1_u64 << 32).div_ceil(bytes as u64) as u32,
        }
    }

    /// Which object of a span an offset in bytes lies in. Exact for every offset of a span (a test goes through them
    /// all).
    #[inline]
    pub fn index_of(&self, offset: usize) -> usize {
        ((offset as u64 * u64::from(self.reciprocal)) >> 32) as usize
    }
}

const fn make_classes() -> [SizeClass; CLASSES] {
    let mut table = [SizeClass::NONE; CLASSES];
    let (mut class, mut bytes) = (1, 8);
    while bytes <= MAX_SMALL_BYTES {
        table[class] = SizeClass::new(bytes);
        class += 1;
        bytes += if bytes < 16 {
            8
        } else if bytes < LINEAR_BYTES {
            16
        } else {
            // The power of two at or below, over the steps of its doubling.
            (1 << bytes.ilog2()) / STEPS
        };
    }
    assert!(class == CLASSES);
    table
}

/// For each multiple of `step` from `first` on, the least class that holds it.
const fn make_index<const N: usize>(first: usize, step: usize) -> [u8; N] {
    let mut table = [0; N];
    let (mut i, mut class) = (0, 1);
    while i < N {
        while (CLASS[class].bytes as usize) < first + i * step {
            class += 1;
        }
        table[i] = class as u8;
        i += 1;
    }
    table
}

/// The classes, in order of size; the first is class 0, of no size.
pub static CLASS: [SizeClass; CLASSES] = make_classes();
static FINE: [u8; FINE_BYTES / 8 + 1] = make_index(0, 8);
/// The same by steps of 16, nothing below 16 bytes: all classes from there on are multiples of it up to `FINE_BYTES`.
static ALIGNED: [u8; FINE_BYTES / 16 + 1] = {
    let mut table: [u8; FINE_BYTES / 16 + 1] = make_index(0, 16);
    table[0] = table[1];
    table
};
static COARSE: [u8; (MAX_SMALL_BYTES - FINE_BYTES) / COARSE_STEP + 1] = make_index(FINE_BYTES, COARSE_STEP);

/// The class of a request of at most `FINE_BYTES`, whose objects are aligned to 16; 0 above that.
#[inline(always)]
pub(super) fn fine_class_aligned(bytes: usize) -> usize {
    if bytes <= FINE_BYTES { ALIGNED[(bytes + 15) >> 4] as usize } else { 0 }
}

/// The class of a request of `bytes`; 0 above `MAX_SMALL_BYTES`. A request of nothing gets the smallest.
#[inline(always)]
pub fn class_of(bytes: usize) -> usize {
    if bytes <= FINE_BYTES {
        FINE[(bytes + 7) >> 3] as usize
    } else if bytes <= MAX_SMALL_BYTES {
        COARSE[(bytes - FINE_BYTES).div_ceil(COARSE_STEP)] as usize
    } else {
        0
    }
}

/// The least class that holds `bytes` and keeps objects aligned to `align`, a power of two; 0 if there is none.
pub fn class_of_aligned(bytes: usize, align: usize) -> usize {
    // Spans start at pages, so an object is as aligned as the class's size is, up to a page.
    if align > PAGE_BYTES {
        return 0;
    }
    let mut class = class_of(bytes.max(align));
    while class != 0 && !(CLASS[class].bytes as usize).is_multiple_of(align) {
        class = (class + 1) % CLASSES;
    }
    class
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_at_most_an_eighth_from_128_bytes_up() {
        for class in 1..CLASSES {
            let (bytes, smallest) = (CLASS[class].bytes, CLASS[class - 1].bytes + 1);
            assert!(bytes < 16 || bytes.is_multiple_of(16), "{bytes} is not aligned");
            assert!(bytes < 128 || f64::from(bytes - smallest) / f64::from(bytes) <= 0.125, "{bytes} wastes too much");
        }
        assert_eq!((CLASS[1].bytes, CLASS[2].bytes, CLASS[CLASSES - 1].bytes as usize), (8, 16, MAX_SMALL_BYTES));
    }

    #[test]
    fn spans_are_filled_up_to_a_sixteenth_and_hold_four() {
        for c in &CLASS[1..] {
            let span = c.pages as usize * PAGE_BYTES;
            assert!(c.objects >= 4 && c.objects as usize <= MAX_OBJECTS && c.pages <= 16);
            assert!(span - (c.objects * c.bytes) as usize <= span / TAIL_PART, "{c:?}");
            assert!(c.batch >= 2 && c.batch <= 128 && c.cached_max >= c.batch);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "arithmetic, and much of it")]
    fn lookup_gives_the_least_class_for_every_size() {
        for bytes in 0..=MAX_SMALL_BYTES {
            let least = (1..CLASSES).find(|&c| CLASS[c].bytes as usize >= bytes);
            assert_eq!(Some(class_of(bytes)), least, "{bytes}");
        }
        assert_eq!((class_of(MAX_SMALL_BYTES + 1), class_of(usize::MAX)), (0, 0));
    }

    #[test]
    #[cfg_attr(miri, ignore = "arithmetic, and much of it")]
    fn index_of_is_the_division_for_every_offset() {
        for c in &CLASS[1..] {
            for offset in 0..c.pages as usize * PAGE_BYTES {
                assert_eq!(c.index_of(offset), offset / c.bytes as usize, "{} at {offset}", c.bytes);
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "arithmetic, and much of it")]
    fn aligned_classes_are_multiples_of_the_alignment() {
        for shift in 0..=13 {
            let align = 1 << shift;
            for bytes in (0..=MAX_SMALL_BYTES).step_by(7) {
                let class = class_of_aligned(bytes, align);
                assert!(class != 0 && CLASS[class].bytes as usize >= bytes);
                assert!((CLASS[class].bytes as usize).is_multiple_of(align), "{bytes} at {align}");
            }
        }
        assert_eq!(class_of_aligned(8, 2 * PAGE_BYTES), 0);
    }

    /// What the generator makes, so that a change of its constants is seen: bytes, pages and objects of a span, batch.
    #[test]
    fn generated_table_is_the_known_one() {
        let line = |c: &SizeClass| format!("{}/{}/{}/{}", c.bytes, c.pages, c.objects, c.batch);
        let text = CLASS[1..].iter().map(line).collect::<Vec<_>>().join(" ");
        assert_eq!(text, include_str!("size_classes.txt").split_whitespace().collect::<Vec<_>>().join(" "));
    }
}
