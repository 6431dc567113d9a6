//! Layer 3: memory for objects, a thread-cache allocator in TCMalloc's shape.
//!
//! Words. **Class**: one of 73 sizes that requests up to 32 KiB are rounded up to. **Page**: 8 KiB. **Span**: a run of
//! pages, free, one large object, or objects of one class. **Cache**: free objects by class that one owner has, a P.
//! **Central list**: per class, what caches share. **Page heap**: the spans. **Page map**: from an address to its span
//! and class.
//!
//! One small allocation: the size's class, by a table; the newest object of the cache's stack for it. That is all, 99
//! times in a hundred: no lock, no locked instruction, and the object itself is not touched. An empty stack is filled
//! with a batch from the central list, under the class's lock: from what other caches gave back, from what was freed
//! remotely, from spans with free objects, from new spans. A free is the way back: the address's class, by the page
//! map; the stack; a full one gives its oldest batch to the central list; a span whose objects are all free goes back
//! to the page heap, which joins it with its neighbours, and `release` gives what stays unused to the system
//! (docs/walk_alloc.md).
//!
//! An object belongs to no cache. A P that frees what another P allocated keeps it in its own cache, without a locked
//! instruction, and the central list brings it back a batch at a time. Owners per span or page, as mimalloc has them,
//! were not taken: each free would ask who the owner is, each foreign one would pay a locked instruction, and an owner
//! that sleeps would leave its list unsettled. Remote lists are for those who have no cache: threads that are no P, and
//! callers without the host's lock. Per class, not per cache: whoever needs objects of the class next settles them.
//!
//! Thread-locals name no cache: a goroutine changes its thread, a P does not lose its cache. Whoever has the P has
//! `&mut Cache`; the compiler holds what TCMalloc's per-thread pointer promises.
//!
//! Sources: TCMalloc's design notes and `thread_cache.cc` (gperftools), Go's `mcache`, `mcentral`, `mheap`,
//! `mpagealloc.go`.

#[cfg(not(model))]
mod bins;
mod block;
#[cfg(not(model))]
mod cache;
#[cfg(not(shuttle))]
#[cfg_attr(loom, allow(dead_code, reason = "the heap, which calls all of it, is in no model"))]
mod central;
#[cfg(not(model))]
mod debug;
#[cfg(not(model))]
mod domains;
#[cfg(not(model))]
mod heap;
mod list;
#[cfg(not(model))]
mod metadata;
#[cfg(all(test, loom))]
mod model;
#[cfg(not(model))]
mod page_heap;
#[cfg(not(model))]
mod page_map;
#[cfg(not(model))]
mod release;
#[cfg(not(shuttle))]
mod remote_free;
mod ring;
#[cfg(not(model))]
pub mod size_class;
#[cfg(not(shuttle))]
mod slots;
#[cfg(not(model))]
mod span;
#[cfg(not(model))]
mod span_store;
#[cfg(not(model))]
mod stats;
#[cfg(all(test, not(model)))]
mod tests;

#[cfg(not(model))]
pub use block::serve_lists;
#[cfg(not(model))]
pub use cache::Cache;
#[cfg(not(model))]
pub use debug::{DebugConfig, Misuse, Report, fatal};
#[cfg(not(model))]
pub use domains::Domains;
#[cfg(not(model))]
pub use heap::{Config, ForkHold, Heap};
pub use list::List;
pub use ring::Ring;
#[cfg(not(model))]
pub use span::PAGE_BYTES;
#[cfg(not(model))]
pub use stats::{ClassStats, Stats};
