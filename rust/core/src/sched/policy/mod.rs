//! Policies: in which order those that are ready go on, and whose turn it is not.
//!
//! First come first served, Go's way, needs nothing of this: the queues are in that order. Anything else keeps Ms off the short
//! way by a request that nobody takes back (`REQUEST_POLICY`), and `search` asks `choose`. That takes everybody out of the
//! P's queue and the global one into one list for all Ps, in the order of the policy, under one lock. Who comes back to g0 is
//! charged with the CPU time of his thread: a call that waits, or a wait for the host's lock, costs nothing.
//!
//! Who wakes and goes before somebody who computes has him interrupted (`preempt`): at once when a goroutine wakes him, and
//! when it is the clock or a descriptor, by sysmon, which then looks at those as often as it must.

mod fair;
mod group;
mod meter;
mod mlfq;
mod nodes;
#[cfg(all(test, not(model)))]
mod tests;
mod turn;
mod waits;

pub use group::{Group, GroupAccount, GroupRef, PERIOD_NS};
pub(super) use meter::Meter;

use super::inject_queue::Fifo;
use super::runtime::{REQUEST_POLICY, Runtime};
use crate::goroutine::{Account, Goroutine, SchedEntity};
use crate::primitive::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use crate::primitive::room::make_room;
use crate::primitive::{Mutex, MutexGuard};
use crate::sys::clock;
use fair::{Fair, WEIGHT};
use mlfq::Mlfq;
use nodes::{List, Nodes};
use std::ptr;
use waits::Waits;

/// Priorities are from this to its opposite.
pub const LEAST_PRIORITY: i8 = -20;
/// The order of those that are ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// First come, first served.
    Fifo,
    /// A multi-level feedback queue: by priority, and who waits much before who computes much.
    Mlfq,
    /// Virtual run time, with weights.
    Fair,
}

struct State {
    /// Whose order is in use; the others are empty.
    policy: Policy,
    fifo: Fifo<Goroutine>,
    mlfq: Mlfq,
    fair: Fair,
    /// Places of all lists but `fifo`.
    nodes: Nodes,
    /// Ready, and before everybody.
    reserved: List,
    groups: Vec<*const Group>,
    /// For how many goroutines there is room.
    goroutines: usize,
    /// Goroutines that are reserved.
    reservations: usize,
    is_measured: bool,
    slice_ns: u64,
    waits: Waits,
}

// SAFETY: the goroutines in the lists are the state's, under the lock it is in; groups are alive while they are listed.
unsafe impl Send for State {}

/// All of it.
pub struct Policies {
    state: Mutex<State>,
    /// How many may run of those in the state's lists; a moment's view.
    waiting: AtomicUsize,
    /// Whether one that wakes may go before one that computes.
    watches_wakes: AtomicBool,
    /// How often this was put to use: what began before is not charged.
    era: AtomicU32,
    /// Whether goroutines have entities: each one, once anybody may stand otherwise than a new one.
    has_entities: AtomicBool,
}

/// What a goroutine of `priority` gets beside one of priority 0, which gets `WEIGHT`: 1.25 times as much for each step, as
/// Linux has it for each step of nice.
fn weight_of(priority: i8) -> u64 {
    let steps = 0..priority.unsigned_abs();
    steps.fold(WEIGHT, |weight, _| if priority < 0 { weight * 4 / 5 } else { weight * 5 / 4 })
}

impl State {
    fn new(slice_ns: u64) -> Self {
        Self {
            policy: Policy::Fifo,
            fifo: Fifo::default(),
            mlfq: Mlfq::new(slice_ns),
            fair: Fair::new(slice_ns),
            nodes: Nodes::new(),
            reserved: List::new(),
            groups: Vec::new(),
            goroutines: 0,
            reservations: 0,
            is_measured: false,
            slice_ns,
            waits: Waits::new(),
        }
    }

    fn len(&self) -> usize {
        self.reserved.len() + self.fifo.len() + self.mlfq.len() + self.fair.len()
    }

    /// Makes room for so many goroutines and groups, whatever lists they are in. `false`: memory is refused.
    fn make_room(&mut self, goroutines: usize, groups: usize) -> bool {
        self.fifo.make_room(goroutines)
            && self.nodes.make_room(goroutines + groups)
            && make_room(&mut self.groups, groups)
    }

    /// `is_behind`: it used up a slice and was preempted.
    ///
    /// # Safety
    /// `g` is runnable and the caller's.
    unsafe fn add(&mut self, g: *mut Goroutine, now_ns: u64, is_behind: bool) {
        // SAFETY: the caller's promise.
        unsafe {
            let entity = &mut *Goroutine::entity(g);
            if entity.ready_since_ns == 0 {
                entity.ready_since_ns = now_ns;
            }
            if entity.is_reserved {
                self.reserved.push(&mut self.nodes, g, now_ns);
                return;
            }
            match self.policy {
                Policy::Fifo => self.fifo.push(g, is_behind),
                Policy::Mlfq => self.mlfq.push(&mut self.nodes, g, now_ns),
                Policy::Fair => self.fair.push(&mut self.nodes, g, is_behind),
            }
        }
    }

    /// Whose turn it is, or null.
    unsafe fn next(&mut self, now_ns: u64) -> *mut Goroutine {
        if let Some(first) = self.reserved.pop(&mut self.nodes) {
            return first.g;
        }
        loop {
            // SAFETY: what is listed is the state's; goroutines have a count of their groups.
            unsafe {
                let first = match self.policy {
                    Policy::Fifo => self.fifo.pop(),
                    Policy::Mlfq => self.mlfq.pop(&mut self.nodes, now_ns),
                    Policy::Fair => self.fair.pop(&mut self.nodes),
                };
                let Some(g) = first else { return ptr::null_mut() };
                match group_of(&*Goroutine::entity(g)) {
                    Some(group) if group.state().is_throttled => {
                        group.state().aside.push(&mut self.nodes, g, now_ns);
                    }
                    _ => return g,
                }
            }
        }
    }

    /// Who is next, as far as one look tells, or null.
    unsafe fn first(&self) -> *mut Goroutine {
        let first = match self.policy {
            _ if !self.reserved.is_empty() => self.reserved.front(&self.nodes).map(|first| first.g),
            Policy::Fifo => self.fifo.front(),
            Policy::Mlfq => self.mlfq.first(&self.nodes),
            // SAFETY: the lock is held; groups with queued goroutines live.
            Policy::Fair => unsafe { self.fair.first(&self.nodes) },
        };
        first.unwrap_or(ptr::null_mut())
    }

    /// Takes everybody but the reserved out of the order in use.
    unsafe fn take_ordered(&mut self) -> List {
        let mut all = List::new();
        match self.policy {
            Policy::Fifo => self.fifo.drain().for_each(|(g, _)| all.push(&mut self.nodes, g, 0)),
            Policy::Mlfq => {
                while let Some(g) = self.mlfq.take_one(&mut self.nodes) {
                    all.push(&mut self.nodes, g, 0);
                }
            }
            // SAFETY: the lock is held, and listed groups live.
            Policy::Fair => unsafe { self.fair.take_all(&mut self.nodes, &self.groups, &mut all) },
        }
        all
    }

    /// The orders begin anew, with nobody in them.
    fn begin_order(&mut self) {
        self.mlfq = Mlfq::new(self.slice_ns);
        self.fair = Fair::new(self.slice_ns);
    }

    fn is_needed(&self) -> bool {
        self.policy != Policy::Fifo || !self.groups.is_empty() || self.reservations != 0 || self.is_measured
    }

    unsafe fn outranks(&self, woken: &SchedEntity, other: &SchedEntity, ran_ns: u64) -> bool {
        if woken.is_reserved || other.is_reserved {
            return woken.is_reserved && !other.is_reserved;
        }
        // SAFETY: the lock is held; goroutines have a count of their groups.
        unsafe {
            if group_of(woken).is_some_and(|group| group.state().is_throttled) {
                return false;
            }
            match self.policy {
                Policy::Fifo => false,
                Policy::Mlfq => mlfq::level(woken) < mlfq::level(other),
                Policy::Fair => self.fair.outranks(woken, other, ran_ns),
            }
        }
    }
}

unsafe fn group_of(entity: &SchedEntity) -> Option<&Group> {
    // SAFETY: the caller keeps the goroutine, which has a count of its group.
    unsafe { entity.group.cast::<Group>().as_ref() }
}

impl Policies {
    pub(super) fn new(slice_ns: u64) -> Self {
        Self {
            state: Mutex::new(State::new(slice_ns)),
            waiting: AtomicUsize::new(0),
            watches_wakes: AtomicBool::new(false),
            era: AtomicU32::new(0),
            has_entities: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Makes room for `goroutines` in all and for `new_groups` more. Returns how many both are in all; `None`: memory is refused.
    pub(super) fn make_room(&self, goroutines: usize, new_groups: usize) -> Option<usize> {
        let mut state = self.lock();
        let (goroutines, groups) = (goroutines.max(state.goroutines), state.groups.len() + new_groups);
        let is_there = state.make_room(goroutines, groups);
        if is_there {
            state.goroutines = goroutines;
        }
        is_there.then_some(goroutines + groups)
    }

    /// Whether nobody in the lists may run; a moment's view.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0 // whoever must not miss it fences (see `idle`)
    }

    /// Whether sysmon looks out for those who wake.
    pub(super) fn watches_wakes(&self) -> bool {
        self.watches_wakes.load(Ordering::Relaxed)
    }

    /// Tells everybody else of changes, gives the lock back, and whoever is listed to the queues if no list is needed any more.
    fn publish(&self, rt: &Runtime, mut state: MutexGuard<'_, State>) {
        if !self.tell(rt, &state) {
            let state = &mut *state;
            while let Some(first) = state.reserved.pop(&mut state.nodes) {
                rt.inject.push(first.g);
            }
            rt.inject.append(&mut state.fifo); // no list is needed for this order only
            self.waiting.store(0, Ordering::Relaxed);
        }
        drop(state);
        if !self.is_empty() || !rt.inject.is_empty() {
            rt.wake_one(ptr::null_mut());
        }
    }

    /// Tells everybody else of changes; returns whether the lists are needed.
    fn tell(&self, rt: &Runtime, state: &State) -> bool {
        let is_needed = state.is_needed();
        if is_needed {
            let before = rt.requests.fetch_or(REQUEST_POLICY, Ordering::AcqRel);
            self.era.fetch_add(u32::from(before & REQUEST_POLICY == 0), Ordering::Relaxed); // under the lock
        } else {
            rt.requests.fetch_and(!REQUEST_POLICY, Ordering::AcqRel);
        }
        self.watches_wakes.store(state.policy != Policy::Fifo || state.reservations != 0, Ordering::Relaxed);
        self.waiting.store(state.len(), Ordering::Relaxed);
        is_needed
    }

    /// The last count of `group` is gone.
    fn forget_group(&self, rt: &Runtime, group: *const Group) {
        let mut state = self.lock();
        state.groups.retain(|&other| !ptr::eq(other, group));
        self.publish(rt, state);
    }

    /// In a forked child: nobody is ready but who runs.
    pub(super) unsafe fn forget(&self, rt: &Runtime, survivor: *mut Goroutine) {
        let mut state = self.lock();
        // SAFETY: one thread only; the survivor, if there is one, is the caller's.
        unsafe {
            let state = &mut *state;
            state.reserved = List::new();
            state.fifo.clear();
            state.begin_order();
            state.nodes.clear();
            for &group in &state.groups {
                (*group).state().forget();
            }
            let is_reserved = !survivor.is_null() && rt.has_entities() && (*Goroutine::entity(survivor)).is_reserved;
            state.reservations = usize::from(is_reserved);
        }
        self.tell(rt, &state);
    }
}

/// What users of the runtime ask for.
impl Runtime {
    /// The order from now on; returns the previous one, `None` when memory is refused. Host attached, as for all of these.
    pub fn set_policy(&self, policy: Policy) -> Option<Policy> {
        if policy != Policy::Fifo && !self.use_entities() {
            return None;
        }
        let mut state = self.policies.lock();
        let before = state.policy;
        if before != policy {
            let now = clock::now_ns();
            // SAFETY: what is listed is the state's, and goes into the new lists.
            unsafe {
                let state = &mut *state;
                let mut all = state.take_ordered();
                state.policy = policy;
                state.begin_order();
                while let Some(next) = all.pop(&mut state.nodes) {
                    state.add(next.g, now, false);
                }
            }
        }
        self.policies.publish(self, state);
        Some(before)
    }

    /// The order now.
    pub fn policy(&self) -> Policy {
        self.policies.lock().policy
    }

    /// Measures run times and waits from now on, or only while something else here needs them; returns what was before, `None` when
    /// memory is refused.
    pub fn set_measured(&self, is_measured: bool) -> Option<bool> {
        if is_measured && !self.use_entities() {
            return None;
        }
        let mut state = self.policies.lock();
        let before = std::mem::replace(&mut state.is_measured, is_measured);
        self.policies.publish(self, state);
        Some(before)
    }

    /// Changes the priority of `g`. For one that computes: from its next scheduling point on. `false`: memory is refused.
    ///
    /// # Safety
    /// A live goroutine of this runtime.
    pub unsafe fn set_priority(&self, g: *mut Goroutine, priority: i8) -> bool {
        if !self.use_entities() {
            return false;
        }
        let mut state = self.policies.lock();
        // SAFETY: the caller's promise, under the lock.
        unsafe {
            let entity = &mut *Goroutine::entity(g);
            let before = mlfq::level(entity);
            entity.priority = priority.clamp(LEAST_PRIORITY, -LEAST_PRIORITY);
            (entity.sunk, entity.used_ns) = (0, 0);
            let lists = &mut *state;
            if lists.policy == Policy::Mlfq && lists.mlfq.requeue(&mut lists.nodes, g, before) {
                self.interrupt_for(g, state, clock::now_ns());
            }
        }
        true
    }

    /// The priority of `g`.
    ///
    /// # Safety
    /// A live goroutine of this runtime; host attached.
    pub unsafe fn priority(&self, g: *const Goroutine) -> i8 {
        // SAFETY: the caller's promise; there are entities.
        if self.has_entities() { unsafe { (*Goroutine::entity(g)).priority } } else { 0 }
    }

    /// Whether those that `g` starts stand otherwise than a new one.
    ///
    /// # Safety
    /// Null or a live goroutine of this runtime; host attached.
    #[inline]
    pub unsafe fn gives_a_place(&self, g: *const Goroutine) -> bool {
        // SAFETY: the caller's promise; there are entities.
        self.has_entities() && !g.is_null() && unsafe { (*Goroutine::entity(g)).is_inherited() }
    }

    /// `g` goes before everybody from now on, or no more.
    ///
    /// # Safety
    /// A live goroutine of this runtime, which has `use_entities` behind it.
    pub unsafe fn set_reserved(&self, g: *mut Goroutine, is_reserved: bool) {
        let mut state = self.policies.lock();
        // SAFETY: the caller's promise, under the lock.
        let before = unsafe { std::mem::replace(&mut (*Goroutine::entity(g)).is_reserved, is_reserved) };
        state.reservations = state.reservations + usize::from(is_reserved) - usize::from(before);
        self.policies.publish(self, state);
    }

    /// What was measured of `g`, and how often it went on on another M than before, which is always counted.
    ///
    /// # Safety
    /// A live goroutine of this runtime; host attached.
    pub unsafe fn account(&self, g: *const Goroutine) -> (Account, u32) {
        let _state = self.policies.lock();
        // SAFETY: the caller's promise, under the lock.
        unsafe {
            let account = if self.has_entities() { (*Goroutine::entity(g)).account() } else { Account::default() };
            (account, (*g).bundle.as_ref().map_or(0, |bundle| bundle.migrations))
        }
    }

    /// A goroutine is about to stand otherwise with the policies than a new one, for the first time perhaps. `false`: memory is refused.
    pub fn use_entities(&self) -> bool {
        if !self.has_entities() && self.registry.keep_entities(self) {
            self.policies.has_entities.store(true, Ordering::Relaxed); // with the host's lock, or before others are told
        }
        self.has_entities()
    }

    #[inline]
    fn has_entities(&self) -> bool {
        self.policies.has_entities.load(Ordering::Relaxed)
    }

    /// A group of `weight` whose goroutines may compute for `quota_ns` of each `PERIOD_NS`; 0: as long as they like. `None`: memory
    /// is refused.
    pub fn new_group(&'static self, weight: u32, quota_ns: u64) -> Option<GroupRef> {
        let all = self.policies.make_room(0, 1)?;
        if !self.processors.keep_room(all) || !self.use_entities() {
            return None;
        }
        let group = Group::make(self, weight, quota_ns)?;
        let mut state = self.policies.lock();
        state.groups.push(group.as_ptr());
        self.policies.publish(self, state);
        Some(group)
    }

    /// Changes weight and quota of `group`.
    pub fn set_group(&self, group: &Group, weight: u32, quota_ns: u64) {
        {
            let _state = self.policies.lock();
            // SAFETY: the lock is held.
            let state = unsafe { group.state() };
            state.weight = weight;
            state.set_quota(quota_ns, clock::now_ns());
        }
        self.refill(group);
    }

    /// What was measured of `group`.
    pub fn group_account(&self, group: &Group) -> GroupAccount {
        let _state = self.policies.lock();
        // SAFETY: the lock is held.
        unsafe { group.state().account }
    }

    /// A period of `group` has begun, or its quota has changed.
    pub(super) fn refill(&self, group: &Group) {
        let now = clock::now_ns();
        let mut state = self.policies.lock();
        // SAFETY: the lock is held; what is set aside is the group's.
        unsafe {
            let was_throttled = group.state().is_throttled;
            match group.state().end_throttling(now) {
                Err(at_ns) => return group.wait_for_time(at_ns),
                Ok(()) if !was_throttled => return,
                Ok(()) => {}
            }
            let state = &mut *state;
            while let Some(first) = group.state().aside.pop(&mut state.nodes) {
                state.add(first.g, now, false);
            }
            if state.policy == Policy::Fair {
                state.fair.enter(&mut state.nodes, group);
            }
        }
        self.policies.publish(self, state);
    }
}

/// Puts `g`, which is new, into `group`.
///
/// # Safety
/// `g` is the caller's and in no group; `group` is null or alive.
pub unsafe fn join_group(g: *mut Goroutine, group: *const Group) {
    // SAFETY: the caller's promise.
    unsafe {
        if !group.is_null() {
            std::mem::forget(GroupRef::to(group));
            (*Goroutine::entity(g)).group = group.cast();
        }
    }
}

/// Takes `g`, which has ended, out of its group.
///
/// # Safety
/// `g` is the caller's; host attached.
#[inline]
pub(super) unsafe fn leave(g: *mut Goroutine, policies: &Policies) {
    if !policies.has_entities.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: the count is the goroutine's.
    unsafe {
        let group = std::mem::replace(&mut (*Goroutine::entity(g)).group, ptr::null());
        if !group.is_null() {
            drop(GroupRef::from_count(group.cast::<Group>()));
        }
        (*Goroutine::entity(g)).reset();
    }
}
