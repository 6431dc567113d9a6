//! Addresses as Python has them: (host, port), a path, "@name" for an abstract one as in Go, "" without a name.

use super::buffer::len_of;
use super::{NetObject, Object, net, socket_of};
use crate::error;
use gort_core::sys::socket::{self, Address, Shown};
use pyo3::ffi;
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::ptr;

/// A host, as Go shows it: an IPv4 address that came by IPv6 as itself, a zone by its number.
struct Host(IpAddr, u32);

impl Display for Host {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.0.to_canonical(), self.1) {
            (host, 0) => host.fmt(f),
            (host, zone) => write!(f, "{host}%{zone}"),
        }
    }
}

/// The address as an object: a new reference, None for none; null with an exception set.
pub(super) unsafe fn show(address: &Address) -> Object {
    // SAFETY: GIL held.
    unsafe {
        match address.shown() {
            Shown::None => super::none(),
            Shown::Inet(host, port, zone) => {
                let (host, port) = (error::text(Host(host, zone)), ffi::PyLong_FromLong(port.into()));
                let pair = if host.is_null() || port.is_null() { ptr::null_mut() } else { ffi::PyTuple_New(2) };
                if pair.is_null() {
                    ffi::Py_XDECREF(host);
                    ffi::Py_XDECREF(port);
                    return pair;
                }
                ffi::PyTuple_SET_ITEM(pair, 0, host);
                ffi::PyTuple_SET_ITEM(pair, 1, port);
                pair
            }
            Shown::Unix(path) => {
                let mut shown = [b'@'; 110];
                let path = match path {
                    [0, name @ ..] => {
                        shown[1..=name.len()].copy_from_slice(name);
                        &shown[..=name.len()]
                    }
                    path => path,
                };
                ffi::PyUnicode_DecodeFSDefaultAndSize(path.as_ptr().cast(), path.len() as _)
            }
        }
    }
}

/// What `object` says: (host, port), also with the flow and the zone of IPv6, host numeric; or the bytes of a path. `None`: an
/// exception is set. With `maps`, an IPv4 address becomes the IPv6 one that stands for it.
pub(super) unsafe fn read(object: Object, maps: bool) -> Option<Address> {
    // SAFETY: GIL held; `object` is alive.
    unsafe {
        if ffi::PyTuple_Check(object) != 0 && ffi::PyTuple_GET_SIZE(object) >= 2 {
            return read_inet(object, maps);
        }
        if ffi::PyBytes_Check(object) != 0 {
            let (start, bytes) = (ffi::PyBytes_AS_STRING(object), len_of(object));
            let path = std::slice::from_raw_parts(start.cast::<u8>(), bytes);
            let mut place = [0; 128];
            let address = if let [b'@', name @ ..] = path
                && name.len() < place.len()
            {
                place[1..=name.len()].copy_from_slice(name);
                Address::unix(&place[..=name.len()])
            } else {
                Address::unix(path)
            };
            if address.is_none() {
                error::set(ffi::PyExc_ValueError, "a path of 1 to 107 bytes is expected, without NUL");
            }
            return address;
        }
        let text = c"an address is (host, port) or a path, not %R".as_ptr();
        ffi::PyErr_Format(ffi::PyExc_TypeError, text, object);
        None
    }
}

unsafe fn read_inet(tuple: Object, maps: bool) -> Option<Address> {
    // SAFETY: GIL held; a tuple of two items or more.
    unsafe {
        let (text, port) = (ffi::PyTuple_GET_ITEM(tuple, 0), ffi::PyTuple_GET_ITEM(tuple, 1));
        let mut bytes = 0;
        let start = if ffi::PyUnicode_Check(text) == 0 {
            error::set(ffi::PyExc_TypeError, "the host must be a str");
            ptr::null()
        } else {
            ffi::PyUnicode_AsUTF8AndSize(text, &raw mut bytes)
        };
        if start.is_null() {
            return None;
        }
        let shown = std::str::from_utf8_unchecked(std::slice::from_raw_parts(start.cast(), bytes as usize));
        let (host, zone) = shown.split_once('%').unwrap_or((shown, "0"));
        let (Ok(mut host), Ok(mut zone)) = (host.parse::<IpAddr>(), zone.parse::<u32>()) else {
            ffi::PyErr_Format(ffi::PyExc_ValueError, c"%R is no numeric address".as_ptr(), text);
            return None;
        };
        let number = ffi::PyLong_AsLong(port);
        if number == -1 && !ffi::PyErr_Occurred().is_null() {
            return None;
        }
        let Ok(port) = u16::try_from(number) else {
            error::set(ffi::PyExc_ValueError, format_args!("port {number} is not from 0 to 65535"));
            return None;
        };
        if ffi::PyTuple_GET_SIZE(tuple) >= 4 {
            let scope = ffi::PyLong_AsLong(ffi::PyTuple_GET_ITEM(tuple, 3));
            if scope == -1 && !ffi::PyErr_Occurred().is_null() {
                return None;
            }
            zone = u32::try_from(scope).unwrap_or(0);
        }
        if let (true, IpAddr::V4(four)) = (maps, host) {
            host = four.to_ipv6_mapped().into();
        }
        Some(Address::inet(host, port, zone))
    }
}

/// Its own address, asked for once.
pub(super) unsafe fn local<'a>(slf: Object) -> &'a Address {
    // SAFETY: GIL held; `slf` is alive.
    unsafe {
        let object = slf.cast::<NetObject>();
        if (*object).local.is_none() && socket_of(slf).fd() >= 0 {
            (*object).local = socket::local(socket_of(slf).fd());
        }
        &(*object).local
    }
}

/// Whether it speaks IPv6.
pub(super) unsafe fn is_v6(slf: Object) -> bool {
    // SAFETY: the caller's.
    matches!(unsafe { local(slf) }.shown(), Shown::Inet(IpAddr::V6(_), _, _))
}

pub(super) unsafe extern "C-unwind" fn local_addr(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { show(local(slf)) }
}

pub(super) unsafe extern "C-unwind" fn remote_addr(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        let fd = socket_of(slf).fd();
        if net(slf).remote.is_none() && fd >= 0 {
            net(slf).remote = socket::remote(fd);
        }
        show(&net(slf).remote)
    }
}
