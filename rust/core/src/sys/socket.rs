//! Sockets that do not block, and their addresses: thin calls, with errors as errno. Nothing here waits but `send_file`, for the file.

use super::errno;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// Errno values that callers tell apart.
pub const AGAIN: i32 = libc::EAGAIN;
/// A signal handler ran.
pub const INTERRUPTED: i32 = libc::EINTR;
/// A connection is being made.
pub const IN_PROGRESS: i32 = libc::EINPROGRESS;
/// Who connected is gone already.
pub const ABORTED: i32 = libc::ECONNABORTED;
/// Wrong argument.
pub const INVALID: i32 = libc::EINVAL;
/// No memory.
pub const NO_MEMORY: i32 = libc::ENOMEM;

/// The kind of socket that is a stream.
pub const STREAM: i32 = libc::SOCK_STREAM;

/// Most buffers of one `send_parts` (Linux: UIO_MAXIOV).
pub const MOST_PARTS: usize = 1024;

/// Room for any address this knows; as aligned as the system's own record.
const ADDRESS_BYTES: usize = 112;

/// A part of a message; the system's iovec.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Part(libc::iovec);

impl Part {
    /// The `bytes` bytes at `start`.
    pub fn new(start: *const u8, bytes: usize) -> Self {
        Self(libc::iovec { iov_base: start.cast_mut().cast(), iov_len: bytes })
    }
}

/// The address of a socket, or none.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Address {
    bytes: [u8; ADDRESS_BYTES],
    size: libc::socklen_t,
}

/// What an address says.
#[derive(Debug, PartialEq, Eq)]
pub enum Shown<'a> {
    /// Nothing: there is none, or of a family that this does not know.
    None,
    /// Host, port, and the zone's number, 0 for none.
    Inet(IpAddr, u16, u32),
    /// A path; abstract names begin with NUL; empty for a socket without a name.
    Unix(&'a [u8]),
}

impl Default for Address {
    fn default() -> Self {
        Self { bytes: [0; ADDRESS_BYTES], size: 0 }
    }
}

impl Address {
    fn of<T: Copy>(record: T, size: usize) -> Self {
        let mut address = Self { size: size as libc::socklen_t, ..Self::default() };
        assert!(size_of::<T>() <= ADDRESS_BYTES && size <= size_of::<T>());
        // SAFETY: checked just now; the place is aligned to 8, as every record is at most; T is plain data.
        unsafe { address.bytes.as_mut_ptr().cast::<T>().write(record) };
        address
    }

    /// Of a host and a port; `zone` is for IPv6 only.
    pub fn inet(host: IpAddr, port: u16, zone: u32) -> Self {
        match host {
            IpAddr::V4(host) => {
                // SAFETY: plain data, for which zeros are valid.
                let mut record: libc::sockaddr_in = unsafe { std::mem::zeroed() };
                record.sin_family = libc::AF_INET as libc::sa_family_t;
                record.sin_port = port.to_be();
                record.sin_addr.s_addr = u32::from(host).to_be();
                Self::of(record, size_of::<libc::sockaddr_in>())
            }
            IpAddr::V6(host) => {
                // SAFETY: as above.
                let mut record: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
                record.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                record.sin6_port = port.to_be();
                record.sin6_addr.s6_addr = host.octets();
                record.sin6_scope_id = zone;
                Self::of(record, size_of::<libc::sockaddr_in6>())
            }
        }
    }

    /// Of a path, or of an abstract name that begins with NUL; `None`: it is too long, or empty, or a path with a NUL in it.
    pub fn unix(path: &[u8]) -> Option<Self> {
        // SAFETY: as above.
        let mut record: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        record.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let is_abstract = path.first() == Some(&0);
        let most = record.sun_path.len() - usize::from(!is_abstract);
        if path.is_empty() || path.len() > most || (!is_abstract && path.contains(&0)) {
            return None;
        }
        for (place, byte) in record.sun_path.iter_mut().zip(path) {
            *place = byte.cast_signed();
        }
        let start = std::mem::offset_of!(libc::sockaddr_un, sun_path);
        Some(Self::of(record, start + path.len() + usize::from(!is_abstract)))
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.size == 0
    }

    /// The system's number of its family.
    pub fn family(&self) -> i32 {
        if (self.size as usize) < size_of::<libc::sa_family_t>() {
            return libc::AF_UNSPEC;
        }
        // SAFETY: every record begins with it (Linux); aligned as the struct is.
        i32::from(unsafe { self.bytes.as_ptr().cast::<libc::sa_family_t>().read() })
    }

    /// What it says.
    pub fn shown(&self) -> Shown<'_> {
        // SAFETY: the family says which record the bytes are, of which there are enough; they are aligned to 8.
        unsafe {
            match self.family() {
                libc::AF_INET => {
                    let record = self.bytes.as_ptr().cast::<libc::sockaddr_in>().read();
                    let host = Ipv4Addr::from(u32::from_be(record.sin_addr.s_addr));
                    Shown::Inet(host.into(), u16::from_be(record.sin_port), 0)
                }
                libc::AF_INET6 => {
                    let record = self.bytes.as_ptr().cast::<libc::sockaddr_in6>().read();
                    let host = Ipv6Addr::from(record.sin6_addr.s6_addr);
                    Shown::Inet(host.into(), u16::from_be(record.sin6_port), record.sin6_scope_id)
                }
                libc::AF_UNIX => {
                    let start = std::mem::offset_of!(libc::sockaddr_un, sun_path);
                    let path = &self.bytes[start.min(self.size as usize)..(self.size as usize).min(ADDRESS_BYTES)];
                    let is_abstract = path.first() == Some(&0);
                    let end = if is_abstract { path.len() } else { path.iter().take_while(|&&b| b != 0).count() };
                    Shown::Unix(&path[..end])
                }
                _ => Shown::None,
            }
        }
    }

    fn start(&self) -> *const libc::sockaddr {
        self.bytes.as_ptr().cast()
    }

    /// Asks for an address with `ask`, which fills it in.
    fn asked(ask: impl FnOnce(*mut libc::sockaddr, *mut libc::socklen_t) -> isize) -> (isize, Self) {
        let mut address = Self::default();
        let mut size = ADDRESS_BYTES as libc::socklen_t;
        let result = ask(address.bytes.as_mut_ptr().cast(), &raw mut size);
        address.size = if result < 0 { 0 } else { size.min(ADDRESS_BYTES as libc::socklen_t) };
        (result, address)
    }
}

fn checked(result: isize) -> Result<usize, i32> {
    usize::try_from(result).map_err(|_| errno::get())
}

/// A new socket that does not block and is not inherited by programs.
///
/// # Errors
/// The errno.
pub fn open(family: i32, kind: i32) -> Result<i32, i32> {
    // SAFETY: numbers only.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) };
    checked(fd as isize).map(|_| fd)
}

/// Closes it.
pub fn close(fd: i32) {
    // SAFETY: the caller's descriptor. After EINTR it is closed, too (Linux).
    unsafe { libc::close(fd) };
}

/// Makes calls on it return instead of waiting.
///
/// # Errors
/// The errno.
pub fn set_nonblocking(fd: i32) -> Result<(), i32> {
    // SAFETY: numbers only.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        if flags < 0 || (flags & libc::O_NONBLOCK == 0 && libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) < 0)
        {
            return Err(errno::get());
        }
    }
    Ok(())
}

/// Takes a whole number for an option.
///
/// # Errors
/// The errno.
pub fn set_option(fd: i32, level: i32, option: i32, value: i32) -> Result<(), i32> {
    let size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: a number of ours and its size.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), size) };
    checked(result as isize).map(|_| ())
}

/// What Go sets for each TCP connection: small packets are not held back, and who is silent for 15 s is asked for a sign of life,
/// 9 times, 15 s apart (net/tcpsock.go, net/sockopt_linux.go). Refusals are passed over, as there.
pub fn set_tcp_options(fd: i32) {
    for (level, option, value) in [
        (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 15),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 15),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 9),
    ] {
        let _ = set_option(fd, level, option, value);
    }
}

/// Lets packets go to all of a network, as Go does.
pub fn allow_broadcast(fd: i32) {
    let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_BROADCAST, 1);
}

/// Binds it to an address.
///
/// # Errors
/// The errno.
pub fn bind(fd: i32, address: &Address) -> Result<(), i32> {
    // SAFETY: an address and its size.
    checked(unsafe { libc::bind(fd, address.start(), address.size) } as isize).map(|_| ())
}

/// Begins to connect.
///
/// # Errors
/// `IN_PROGRESS`: the socket is writable when it is over. The errno.
pub fn connect(fd: i32, address: &Address) -> Result<(), i32> {
    // SAFETY: an address and its size.
    match checked(unsafe { libc::connect(fd, address.start(), address.size) } as isize) {
        // The kernel goes on with it (connect(2)).
        Err(INTERRUPTED) => Err(IN_PROGRESS),
        result => result.map(|_| ()),
    }
}

/// How a connect came out.
///
/// # Errors
/// `AGAIN`: it goes on. The errno it failed with.
pub fn connected(fd: i32) -> Result<(), i32> {
    let (mut error, mut size) = (0, size_of::<i32>() as libc::socklen_t);
    // SAFETY: a number of ours and its size.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut error).cast(), &raw mut size) };
    checked(result as isize)?;
    match error {
        // A wake-up is a hint: only who has a peer is connected (Go's issues 14548 and 19289).
        0 if !remote(fd).is_none() => Ok(()),
        0 | libc::EINPROGRESS | libc::EALREADY | libc::EINTR => Err(AGAIN),
        libc::EISCONN => Ok(()),
        error => Err(error),
    }
}

/// Whether it is a TCP socket: one that gives all it has to who asks for more than that.
pub fn is_tcp(fd: i32) -> bool {
    let (mut protocol, mut size) = (0, size_of::<i32>() as libc::socklen_t);
    // SAFETY: a number of ours and its size.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL, (&raw mut protocol).cast(), &raw mut size) };
    result == 0 && protocol == libc::IPPROTO_TCP
}

/// Sends one urgent byte: for tests of what reads do at its mark.
#[cfg(test)]
pub fn send_urgent(fd: i32) -> bool {
    // SAFETY: one readable byte.
    unsafe { libc::send(fd, b"!".as_ptr().cast(), 1, libc::MSG_OOB) == 1 }
}

/// Takes a connection, with the address of the other end.
///
/// # Errors
/// `AGAIN`; the errno.
pub fn accept(fd: i32) -> Result<(i32, Address), i32> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: a place for an address, and its size.
    let (new, address) = Address::asked(|place, size| unsafe { libc::accept4(fd, place, size, flags) as isize });
    checked(new).map(|new| (new as i32, address))
}

/// Its own address; none if that cannot be had.
pub fn local(fd: i32) -> Address {
    // SAFETY: a place for an address, and its size.
    Address::asked(|place, size| unsafe { libc::getsockname(fd, place, size) as isize }).1
}

/// The address of the other end; none if that cannot be had.
pub fn remote(fd: i32) -> Address {
    // SAFETY: a place for an address, and its size.
    Address::asked(|place, size| unsafe { libc::getpeername(fd, place, size) as isize }).1
}

/// Ends one direction: receiving, or sending.
///
/// # Errors
/// The errno.
pub fn shut_down(fd: i32, receiving: bool) -> Result<(), i32> {
    // SAFETY: numbers only.
    let result = unsafe { libc::shutdown(fd, if receiving { libc::SHUT_RD } else { libc::SHUT_WR }) };
    checked(result as isize).map(|_| ())
}

/// Receives up to `bytes` bytes into `place`.
///
/// # Safety
/// `place` has room for so many.
///
/// # Errors
/// `AGAIN`; the errno.
#[inline]
pub unsafe fn receive(fd: i32, place: *mut u8, bytes: usize) -> Result<usize, i32> {
    let nobody = ptr::null_mut::<u8>();
    // Not by recv: in a program with threads that opens and closes a place to be cancelled at, for a wait that this has not.
    // SAFETY: the caller's promise.
    checked(unsafe { libc::syscall(libc::SYS_recvfrom, fd, place, bytes, libc::MSG_DONTWAIT, nobody, nobody) } as isize)
}

/// How many bytes of a stream there are to receive; 0 where the system does not say.
pub fn available(fd: i32) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: it fills in the number.
    let rc = unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut bytes) };
    if rc < 0 { 0 } else { bytes.max(0) as usize }
}

/// The same as `receive`, with the sender's address.
///
/// # Safety
/// As for `receive`.
///
/// # Errors
/// As there.
pub unsafe fn receive_from(fd: i32, place: *mut u8, bytes: usize) -> Result<(usize, Address), i32> {
    // SAFETY: the caller's promise; a place for an address, and its size.
    let (count, address) =
        Address::asked(|from, size| unsafe { libc::recvfrom(fd, place.cast(), bytes, libc::MSG_DONTWAIT, from, size) });
    checked(count).map(|count| (count, address))
}

/// Sends from `place`, up to `bytes` bytes; to `to`, if that is an address. No signal comes of a broken pipe.
///
/// # Safety
/// So many bytes are readable there.
///
/// # Errors
/// `AGAIN`; the errno.
#[inline]
pub unsafe fn send(fd: i32, place: *const u8, bytes: usize, to: Option<&Address>) -> Result<usize, i32> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let (to, size) = to.map_or((ptr::null(), 0), |to| (to.start(), to.size));
    // As in `receive`.
    // SAFETY: the caller's promise.
    checked(unsafe { libc::syscall(libc::SYS_sendto, fd, place, bytes, flags, to, size) } as isize)
}

/// As `send`, to a connection that is ended right after: the end goes with what fills no packet of its own, where the system can
/// hold that back for it (Linux: 200 ms at most).
///
/// # Safety
/// As for `send`.
///
/// # Errors
/// As for `send`.
pub unsafe fn send_last(fd: i32, place: *const u8, bytes: usize) -> Result<usize, i32> {
    #[cfg(target_os = "linux")]
    const MORE: i32 = libc::MSG_MORE;
    #[cfg(not(target_os = "linux"))]
    const MORE: i32 = 0;
    // SAFETY: the caller's promise.
    checked(unsafe { libc::send(fd, place.cast(), bytes, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | MORE) })
}

/// Sends several parts in one call.
///
/// # Safety
/// Each part is readable.
///
/// # Errors
/// `AGAIN`; the errno.
pub unsafe fn send_parts(fd: i32, parts: &[Part]) -> Result<usize, i32> {
    // SAFETY: plain data, for which zeros are valid; a Part is an iovec.
    unsafe {
        let mut message: libc::msghdr = MaybeUninit::zeroed().assume_init();
        message.msg_iov = parts.as_ptr().cast_mut().cast();
        message.msg_iovlen = parts.len().min(MOST_PARTS) as _;
        checked(libc::sendmsg(fd, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL))
    }
}

/// Sends up to `bytes` bytes of `file` from `offset` on, without a copy through this process. May wait for the file's bytes.
///
/// # Errors
/// `AGAIN`: the socket has no room. `INVALID`: `file` is of a kind that cannot be sent so. The errno.
pub fn send_file(fd: i32, file: i32, offset: u64, bytes: usize) -> Result<usize, i32> {
    let mut offset = offset.cast_signed();
    // SAFETY: a number of ours. The kernel sends at most 2 GiB at once.
    checked(unsafe { libc::sendfile(fd, file, &raw mut offset, bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_addresses_say_what_they_were_made_of() {
        let host: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(Address::inet(host, 80, 0).shown(), Shown::Inet(host, 80, 0));
        let host: IpAddr = "fe80::1".parse().unwrap();
        assert_eq!(Address::inet(host, 65535, 3).shown(), Shown::Inet(host, 65535, 3));
        assert_eq!(Address::unix(b"/tmp/x").unwrap().shown(), Shown::Unix(b"/tmp/x"));
        assert_eq!(Address::unix(b"\0name").unwrap().shown(), Shown::Unix(b"\0name"));
        assert_eq!(Address::default().shown(), Shown::None);
    }

    #[test]
    fn test_paths_that_do_not_fit_are_refused() {
        assert!(Address::unix(&[b'x'; 107]).is_some() && Address::unix(&[b'x'; 108]).is_none());
        let mut name = [b'x'; 109];
        name[0] = 0;
        assert!(Address::unix(&name[..108]).is_some() && Address::unix(&name).is_none());
        assert!(Address::unix(b"").is_none() && Address::unix(b"a\0b").is_none());
    }

    #[test]
    fn test_a_connection_carries_bytes_both_ways() {
        let host: IpAddr = "127.0.0.1".parse().unwrap();
        let listener = open(libc::AF_INET, libc::SOCK_STREAM).unwrap();
        bind(listener, &Address::inet(host, 0, 0)).unwrap();
        // SAFETY: numbers only.
        assert_eq!(unsafe { libc::listen(listener, 8) }, 0);
        assert_eq!(accept(listener).err(), Some(AGAIN));
        let client = open(libc::AF_INET, libc::SOCK_STREAM).unwrap();
        match connect(client, &local(listener)) {
            Ok(()) | Err(IN_PROGRESS) => {}
            Err(error) => panic!("errno {error}"),
        }
        while connected(client) == Err(AGAIN) {}
        let (server, from) = accept(listener).unwrap();
        assert_eq!(from.shown(), local(client).shown());
        let mut place = [0_u8; 8];
        // SAFETY: places of so many bytes.
        unsafe {
            assert_eq!(receive(server, place.as_mut_ptr(), 8), Err(AGAIN));
            let parts = [Part::new(b"ab".as_ptr(), 2), Part::new(b"cde".as_ptr(), 3)];
            assert_eq!(send_parts(client, &parts), Ok(5));
            assert_eq!(receive(server, place.as_mut_ptr(), 3), Ok(3));
            assert_eq!(available(server), 2);
            assert_eq!(receive(server, place.as_mut_ptr().add(4), 4), Ok(2));
            assert_eq!(&place[..6], b"abc\0de");
            assert_eq!(receive(server, place.as_mut_ptr(), 8), Err(AGAIN));
            shut_down(client, false).unwrap();
            assert_eq!(available(server), 0);
            assert_eq!(receive(server, place.as_mut_ptr(), 8), Ok(0));
            assert_eq!(send(server, place.as_ptr(), 2, None), Ok(2));
            assert_eq!(receive(client, place.as_mut_ptr(), 8), Ok(2));
        }
        for fd in [listener, client, server] {
            close(fd);
        }
        assert_eq!(available(-1), 0);
    }
}
