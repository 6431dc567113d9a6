//! poll, select and epoll_wait by a goroutine: look without waiting, stand at every descriptor, look again after each event.

use super::caller::{Caller, block_foreign, caller, foreign_wait};
use super::hooks::{Counts, original};
use super::sleep::ns_of;
use super::wait::error_of;
use crate::goroutine::waiter::{Node, Outcome, Reason, Wait};
use crate::netpoll::{PollDesc, Side};
use crate::sched::{self, Runtime};
use crate::sys::{clock, errno};
use libc::{c_int, c_short, epoll_event, fd_set, nfds_t, pollfd, sigset_t, timespec, timeval};
use std::ptr;

/// Descriptors that need no allocation.
const FEW: usize = 8;

/// A side of a descriptor that a poll stands at.
struct Place {
    fd: c_int,
    desc: &'static PollDesc,
    side: Side,
    seen: u32,
    node: Node,
}

/// The sides at which `events` of a descriptor show.
fn sides(events: c_short) -> impl Iterator<Item = Side> {
    let write = events & (libc::POLLOUT | libc::POLLWRBAND) != 0;
    // A hang-up shows on both; who asks for nothing else waits on the read side.
    let read = events & !(libc::POLLOUT | libc::POLLWRBAND) != 0 || !write;
    [(read, Side::Read), (write, Side::Write)].into_iter().filter_map(|(wanted, side)| wanted.then_some(side))
}

/// Waits until `look` finds something (not 0), for `timeout_ns` at most. `None`: a descriptor has no events; the original is
/// to wait. `wanted` yields descriptors and events.
fn wait_for(
    caller: &Caller,
    wanted: impl Iterator<Item = (c_int, c_short)> + Clone,
    timeout_ns: Option<u64>,
    mut look: impl FnMut() -> c_int,
) -> Option<c_int> {
    let before = errno::get();
    let deadline = timeout_ns.map(|ns| clock::now_ns().saturating_add(ns));
    let mut places: Vec<Place> = Vec::new();
    if places.try_reserve(FEW).is_err() {
        return None;
    }
    for (fd, events) in wanted.filter(|&(fd, _)| fd >= 0) {
        let Ok(desc) = caller.net().desc(fd) else {
            errno::set(before);
            return None;
        };
        if places.try_reserve(2).is_err() {
            errno::set(before);
            return None;
        }
        places.extend(sides(events).map(|side| Place {
            fd,
            desc,
            side,
            seen: 0,
            node: Node::new(ptr::null_mut(), ptr::null_mut()),
        }));
    }
    loop {
        for place in &mut places {
            // Anew each time: the number may have become another file's since the last look.
            let Ok(desc) = caller.net().desc(place.fd) else {
                errno::set(before);
                return None;
            };
            place.desc = desc;
            place.seen = desc.seq(place.side);
        }
        let found = look();
        if found != 0 {
            if found > 0 {
                errno::set(before);
            }
            return Some(found);
        }
        match caller.attached(|rt| stand(rt, &mut places, deadline)) {
            Outcome::Delivered | Outcome::Closed => {}
            Outcome::TimedOut => {
                errno::set(before);
                return Some(0);
            }
            outcome => {
                errno::set(error_of(outcome));
                return Some(-1);
            }
        }
    }
}

/// Stands at all places until one has an event.
fn stand(rt: &'static Runtime, places: &mut [Place], deadline_ns: Option<u64>) -> Outcome {
    let now = clock::now_ns();
    // SAFETY: the place is this caller's to the end of the call; announced, and no lock is held. The nodes stay in the vector, which
    // nobody touches, until they are unlinked: by the claimer or below.
    sched::with_place(|wait: *mut Wait| unsafe {
        wait.write(foreign_wait());
        sched::announce(&mut *wait);
        let moved = places.iter_mut().any(|place| {
            place.node = Node::new(wait, ptr::null_mut());
            !rt.net.enqueue(place.desc, place.side, &raw mut place.node, place.seen, || now)
        });
        let outcome = if moved && (*wait).claim(Outcome::Delivered) {
            sched::retract(&*wait);
            Outcome::Delivered
        } else {
            block_foreign(rt, &mut *wait, Reason::Io, deadline_ns)
        };
        for place in places {
            rt.net.remove(place.desc, place.side, &raw mut place.node);
        }
        outcome
    })
}

/// What all of them share. `timeout_ns`: `None` for ever.
fn hooked(
    wanted: impl Iterator<Item = (c_int, c_short)> + Clone,
    timeout_ns: Option<u64>,
    counts: &Counts,
    look: impl FnMut() -> c_int,
) -> Option<c_int> {
    hooked_by(&caller()?, wanted, timeout_ns, counts, look)
}

fn hooked_by(
    caller: &Caller,
    wanted: impl Iterator<Item = (c_int, c_short)> + Clone,
    timeout_ns: Option<u64>,
    counts: &Counts,
    mut look: impl FnMut() -> c_int,
) -> Option<c_int> {
    let found = look();
    if found != 0 || timeout_ns == Some(0) {
        return Some(found);
    }
    counts.park();
    let done = wait_for(caller, wanted, timeout_ns, look);
    if done.is_none() {
        counts.hand_off();
    }
    done
}

fn ms(timeout: c_int) -> Option<u64> {
    u64::try_from(timeout).ok().map(|ms| ms * 1_000_000)
}

unsafe fn wanted_of(fds: *const pollfd, count: nfds_t) -> impl Iterator<Item = (c_int, c_short)> + Clone {
    // SAFETY: the caller's array of that many.
    (0..count as usize).map(move |i| unsafe { ((*fds.add(i)).fd, (*fds.add(i)).events) })
}

/// `poll`, and `__poll_chk` behind its check.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: as called, here and below.
    let done =
        unsafe { hooked(wanted_of(fds, count), ms(timeout), &original::poll::COUNTS, || libc::poll(fds, count, 0)) };
    // SAFETY: as called.
    done.unwrap_or_else(|| unsafe { original::poll::call(fds, count, timeout) })
}

/// A time-out by pointer; `Err`: the original is to refuse it.
unsafe fn timeout_of(time: *const timespec) -> Result<Option<u64>, ()> {
    // SAFETY: null or the caller's record.
    match unsafe { time.as_ref() } {
        None => Ok(None),
        Some(time) => ns_of(time).map(Some).ok_or(()),
    }
}

/// `ppoll`; with a signal mask the original waits.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    time: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: as called, here and below.
    unsafe {
        let done = match timeout_of(time) {
            Ok(timeout) if mask.is_null() => {
                hooked(wanted_of(fds, count), timeout, &original::ppoll::COUNTS, || libc::poll(fds, count, 0))
            }
            _ => None,
        };
        done.unwrap_or_else(|| original::ppoll::call(fds, count, time, mask))
    }
}

/// The three sets of a select, and what they were when it was called: each look overwrites them.
struct Sets {
    sets: [*mut fd_set; 3],
    asked: [fd_set; 3],
    count: c_int,
}

impl Sets {
    unsafe fn new(count: c_int, sets: [*mut fd_set; 3]) -> Self {
        // SAFETY: each is null or the caller's.
        let asked = sets.map(|set| unsafe { if set.is_null() { std::mem::zeroed() } else { *set } });
        Self { sets, asked, count: count.clamp(0, libc::FD_SETSIZE as c_int) }
    }

    fn wanted(&self) -> impl Iterator<Item = (c_int, c_short)> + Clone + '_ {
        const EVENTS: [c_short; 3] = [libc::POLLIN, libc::POLLOUT, libc::POLLPRI];
        (0..self.count).filter_map(|fd| {
            let mut events = 0;
            for (i, bit) in EVENTS.iter().enumerate() {
                // SAFETY: below FD_SETSIZE; the set is ours.
                if !self.sets[i].is_null() && unsafe { libc::FD_ISSET(fd, &raw const self.asked[i]) } {
                    events |= bit;
                }
            }
            (events != 0).then_some((fd, events))
        })
    }

    /// A select that does not wait.
    fn look(&self) -> c_int {
        let mut zero = timeval { tv_sec: 0, tv_usec: 0 };
        let [read, write, except] = self.sets;
        // SAFETY: the caller's sets, put back to what was asked before each look.
        unsafe {
            for (set, asked) in self.sets.iter().zip(&self.asked) {
                if !set.is_null() {
                    **set = *asked;
                }
            }
            libc::select(self.count, read, write, except, &raw mut zero)
        }
    }

    /// Puts the sets back to what was asked, for the original, and after an error: who is interrupted asks again with them.
    fn restore_unless_answered(&self, done: Option<c_int>) {
        if matches!(done, Some(0..)) {
            return;
        }
        for (set, asked) in self.sets.iter().zip(&self.asked) {
            if !set.is_null() {
                // SAFETY: the caller's set.
                unsafe { **set = *asked };
            }
        }
    }
}

/// `select`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn select(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    time: *mut timeval,
) -> c_int {
    // SAFETY: as called, here and below.
    unsafe {
        let timeout = match time.as_ref() {
            None => Some(None),
            Some(t) if t.tv_sec >= 0 && (0..1_000_000).contains(&t.tv_usec) => {
                Some(Some((t.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(t.tv_usec as u64 * 1_000)))
            }
            Some(_) => None,
        };
        let known = (0..=libc::FD_SETSIZE as c_int).contains(&count); // CPython refuses more; others may know larger sets
        let done = timeout.filter(|_| known).and_then(|timeout| {
            let caller = caller()?;
            let begun = clock::now_ns();
            let sets = Sets::new(count, [read, write, except]);
            let done = hooked_by(&caller, sets.wanted(), timeout, &original::select::COUNTS, || sets.look());
            sets.restore_unless_answered(done);
            if let (Some(_), Some(ns), Some(t)) = (done, timeout, time.as_mut()) {
                // Linux tells the time left.
                let left = ns.saturating_sub(clock::now_ns() - begun);
                t.tv_sec = (left / 1_000_000_000) as libc::time_t;
                t.tv_usec = (left % 1_000_000_000 / 1_000) as libc::suseconds_t;
            }
            done
        });
        done.unwrap_or_else(|| original::select::call(count, read, write, except, time))
    }
}

/// `pselect`; with a signal mask the original waits.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn pselect(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    time: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: as called, here and below.
    unsafe {
        let known = mask.is_null() && (0..=libc::FD_SETSIZE as c_int).contains(&count);
        let done = timeout_of(time).ok().filter(|_| known).and_then(|timeout| {
            let caller = caller()?;
            let sets = Sets::new(count, [read, write, except]);
            let done = hooked_by(&caller, sets.wanted(), timeout, &original::pselect::COUNTS, || sets.look());
            sets.restore_unless_answered(done);
            done
        });
        done.unwrap_or_else(|| original::pselect::call(count, read, write, except, time, mask))
    }
}

/// An epoll descriptor is readable when something in it is ready: that is waited for.
fn epoll_by(
    epoll: c_int,
    events: *mut epoll_event,
    size: c_int,
    timeout_ns: Option<u64>,
    counts: &Counts,
) -> Option<c_int> {
    // SAFETY: as called; no time.
    let look = || unsafe { libc::epoll_wait(epoll, events, size, 0) };
    hooked(std::iter::once((epoll, libc::POLLIN)), timeout_ns, counts, look)
}

/// `epoll_wait`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    size: c_int,
    timeout: c_int,
) -> c_int {
    epoll_by(epoll, events, size, ms(timeout), &original::epoll_wait::COUNTS)
        // SAFETY: as called.
        .unwrap_or_else(|| unsafe { original::epoll_wait::call(epoll, events, size, timeout) })
}

/// `epoll_pwait`; with a signal mask the original waits.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn epoll_pwait(
    epoll: c_int,
    events: *mut epoll_event,
    size: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    let done =
        if mask.is_null() { epoll_by(epoll, events, size, ms(timeout), &original::epoll_pwait::COUNTS) } else { None };
    // SAFETY: as called.
    done.unwrap_or_else(|| unsafe { original::epoll_pwait::call(epoll, events, size, timeout, mask) })
}

/// `epoll_pwait2`; with a signal mask the original waits.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn epoll_pwait2(
    epoll: c_int,
    events: *mut epoll_event,
    size: c_int,
    time: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: as called, here and below.
    unsafe {
        let done = match timeout_of(time) {
            Ok(timeout) if mask.is_null() => epoll_by(epoll, events, size, timeout, &original::epoll_pwait2::COUNTS),
            _ => None,
        };
        done.unwrap_or_else(|| original::epoll_pwait2::call(epoll, events, size, time, mask))
    }
}
