//! The head of a request into an environ: `gort.wsgi._head.parse` for the heads that most requests have.

use super::{HOST, Name, Object, TARGET, TOKEN, VALUE, run};
use crate::entry::none;
use crate::error;
use pyo3::ffi;
use std::ffi::CStr;
use std::ptr;

/// What the number says beside where the head ends; `gort.wsgi._head` has the same.
const IS_HTTP11: usize = 1;
const KEEPS: usize = 2;
const HAS_BODY: usize = 4;
const SHIFT: u32 = 5;

/// More digits than any length a machine can hold; `_head.LENGTH_DIGITS`.
const LENGTH_DIGITS: usize = 18;
/// Longer paths with escapes are left to Python.
const PATH_BYTES: usize = 1024;
/// Longer names, too.
const NAME_BYTES: usize = 64;

/// Fields that decide about the request, by their place in `FIELDS`.
const CONNECTION: usize = 0;
const CONTENT_LENGTH: usize = 1;
const EXPECT: usize = 2;
const HOST_FIELD: usize = 3;
const TRANSFER_ENCODING: usize = 4;

/// Names whose keys are there already; others have theirs made.
static FIELDS: [(&[u8], &CStr); 36] = [
    (b"connection", c"HTTP_CONNECTION"),
    (b"content-length", c"CONTENT_LENGTH"),
    (b"expect", c"HTTP_EXPECT"),
    (b"host", c"HTTP_HOST"),
    (b"transfer-encoding", c"HTTP_TRANSFER_ENCODING"),
    (b"accept", c"HTTP_ACCEPT"),
    (b"accept-encoding", c"HTTP_ACCEPT_ENCODING"),
    (b"accept-language", c"HTTP_ACCEPT_LANGUAGE"),
    (b"authorization", c"HTTP_AUTHORIZATION"),
    (b"cache-control", c"HTTP_CACHE_CONTROL"),
    (b"content-type", c"CONTENT_TYPE"),
    (b"cookie", c"HTTP_COOKIE"),
    (b"dnt", c"HTTP_DNT"),
    (b"forwarded", c"HTTP_FORWARDED"),
    (b"if-match", c"HTTP_IF_MATCH"),
    (b"if-modified-since", c"HTTP_IF_MODIFIED_SINCE"),
    (b"if-none-match", c"HTTP_IF_NONE_MATCH"),
    (b"origin", c"HTTP_ORIGIN"),
    (b"pragma", c"HTTP_PRAGMA"),
    (b"priority", c"HTTP_PRIORITY"),
    (b"range", c"HTTP_RANGE"),
    (b"referer", c"HTTP_REFERER"),
    (b"sec-ch-ua", c"HTTP_SEC_CH_UA"),
    (b"sec-ch-ua-mobile", c"HTTP_SEC_CH_UA_MOBILE"),
    (b"sec-ch-ua-platform", c"HTTP_SEC_CH_UA_PLATFORM"),
    (b"sec-fetch-dest", c"HTTP_SEC_FETCH_DEST"),
    (b"sec-fetch-mode", c"HTTP_SEC_FETCH_MODE"),
    (b"sec-fetch-site", c"HTTP_SEC_FETCH_SITE"),
    (b"sec-fetch-user", c"HTTP_SEC_FETCH_USER"),
    (b"upgrade-insecure-requests", c"HTTP_UPGRADE_INSECURE_REQUESTS"),
    (b"user-agent", c"HTTP_USER_AGENT"),
    (b"x-forwarded-for", c"HTTP_X_FORWARDED_FOR"),
    (b"x-forwarded-host", c"HTTP_X_FORWARDED_HOST"),
    (b"x-forwarded-proto", c"HTTP_X_FORWARDED_PROTO"),
    (b"x-real-ip", c"HTTP_X_REAL_IP"),
    (b"x-requested-with", c"HTTP_X_REQUESTED_WITH"),
];
static KEYS: [Name; FIELDS.len()] = [const { Name::new() }; FIELDS.len()];

/// Of the request line.
static LINE_NAMES: [&CStr; 6] =
    [c"REQUEST_METHOD", c"SERVER_PROTOCOL", c"PATH_INFO", c"QUERY_STRING", c"REQUEST_URI", c"RAW_URI"];
static LINE_KEYS: [Name; LINE_NAMES.len()] = [const { Name::new() }; LINE_NAMES.len()];
const METHOD: usize = 0;
const PROTOCOL: usize = 1;
const PATH: usize = 2;
const QUERY: usize = 3;
const URI: usize = 4;
const RAW_URI: usize = 5;

static PROTOCOLS: [Name; 2] = [const { Name::new() }; 2];
static METHODS: [(&[u8], &CStr); 6] = [
    (b"GET", c"GET"),
    (b"POST", c"POST"),
    (b"HEAD", c"HEAD"),
    (b"PUT", c"PUT"),
    (b"DELETE", c"DELETE"),
    (b"PATCH", c"PATCH"),
];
static METHOD_NAMES: [Name; METHODS.len()] = [const { Name::new() }; METHODS.len()];

/// Makes the names; `false` with an exception set.
pub(super) unsafe fn init() -> bool {
    // SAFETY: GIL held by the module's init.
    unsafe {
        FIELDS.iter().zip(&KEYS).all(|(&(_, text), name)| name.set(text))
            && LINE_NAMES.iter().zip(&LINE_KEYS).all(|(text, name)| name.set(text))
            && METHODS.iter().zip(&METHOD_NAMES).all(|(&(_, text), name)| name.set(text))
            && PROTOCOLS[0].set(c"HTTP/1.0")
            && PROTOCOLS[1].set(c"HTTP/1.1")
    }
}

/// Why a head is not taken.
enum Left {
    /// It is for Python to read, or is not all there.
    ToPython,
    /// An exception is set.
    Failed,
}

/// What is allowed.
struct Limits {
    line: usize,
    bytes: usize,
    count: usize,
}

/// What the fields say that is not in the environ.
#[derive(Default)]
struct Said {
    has_host: bool,
    has_length: bool,
    is_chunked: bool,
    keeps: Option<bool>,
}

/// Puts `value`, which is given away, into the environ; `false`: an exception is set.
unsafe fn put(environ: Object, key: Object, value: Object) -> Result<(), Left> {
    // SAFETY: GIL held; a dict and a str.
    unsafe {
        if value.is_null() {
            return Err(Left::Failed);
        }
        let result = ffi::PyDict_SetItem(environ, key, value);
        ffi::Py_DECREF(value);
        if result < 0 { Err(Left::Failed) } else { Ok(()) }
    }
}

/// A str of these bytes, as Latin-1 has them; null with an exception set.
unsafe fn latin1(text: &[u8]) -> Object {
    // SAFETY: GIL held.
    unsafe { ffi::PyUnicode_DecodeLatin1(text.as_ptr().cast(), text.len() as _, ptr::null()) }
}

/// Without spaces and tabs at its ends.
fn stripped(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The request line: where it ends, and whether it is HTTP/1.1's. It goes into the environ.
unsafe fn line(data: &[u8], environ: Object, most: usize) -> Result<(usize, bool), Left> {
    let method_end = run(data, TOKEN);
    let target_at = method_end + 1;
    if method_end == 0 || data.get(method_end) != Some(&b' ') || data.get(target_at) != Some(&b'/') {
        return Err(Left::ToPython); // other targets than paths, too
    }
    let target_end = target_at + run(&data[target_at..], TARGET);
    let is_http11 = match data.get(target_end..target_end + 11) {
        Some(b" HTTP/1.1\r\n") => true,
        Some(b" HTTP/1.0\r\n") => false,
        _ => return Err(Left::ToPython),
    };
    let (method, target) = (&data[..method_end], &data[target_at..target_end]);
    if target_end + 9 > most || method == b"CONNECT" {
        return Err(Left::ToPython);
    }
    // SAFETY: GIL held, a dict; the caller's promise.
    unsafe {
        let known = METHODS.iter().position(|&(text, _)| text == method);
        let method = known.map_or_else(|| latin1(method), |i| ffi::Py_NewRef(METHOD_NAMES[i].get()));
        put(environ, LINE_KEYS[METHOD].get(), method)?;
        put(environ, LINE_KEYS[PROTOCOL].get(), ffi::Py_NewRef(PROTOCOLS[usize::from(is_http11)].get()))?;
        target_into(target, environ)?;
    }
    Ok((target_end + 11, is_http11))
}

/// The target's parts into the environ.
unsafe fn target_into(target: &[u8], environ: Object) -> Result<(), Left> {
    let path_end = target.iter().position(|&byte| byte == b'?').unwrap_or(target.len());
    let (path, query) = (&target[..path_end], target.get(path_end + 1..).unwrap_or_default());
    // SAFETY: GIL held, a dict; the caller's promise.
    unsafe {
        let whole = latin1(target);
        if whole.is_null() {
            return Err(Left::Failed);
        }
        let shown = if !path.contains(&b'%') {
            if query.is_empty() && path_end == target.len() { ffi::Py_NewRef(whole) } else { latin1(path) }
        } else {
            let mut place = [0; PATH_BYTES];
            let Some(count) = unquoted(path, &mut place) else {
                ffi::Py_DECREF(whole);
                return Err(Left::ToPython);
            };
            latin1(&place[..count])
        };
        put(environ, LINE_KEYS[RAW_URI].get(), ffi::Py_NewRef(whole))
            .and_then(|()| put(environ, LINE_KEYS[URI].get(), whole))
            .inspect_err(|_| ffi::Py_XDECREF(shown))?;
        put(environ, LINE_KEYS[PATH].get(), shown)?;
        put(environ, LINE_KEYS[QUERY].get(), latin1(query))
    }
}

/// A path without its escapes; how many bytes. `None`: an escape is malformed, or there is no room.
fn unquoted(path: &[u8], place: &mut [u8; PATH_BYTES]) -> Option<usize> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let (mut from, mut to) = (0, 0);
    while from < path.len() {
        let mut byte = path[from];
        if byte == b'%' {
            byte = digit(*path.get(from + 1)?)? << 4 | digit(*path.get(from + 2)?)?;
            from += 2;
        }
        *place.get_mut(to)? = byte;
        from += 1;
        to += 1;
    }
    Some(to)
}

/// Whether a Host has nothing in it that is for Python to look at.
fn is_plain_host(host: &[u8]) -> bool {
    match host.get(run(host, HOST)..) {
        Some([b':', port @ ..]) => port.iter().all(u8::is_ascii_digit),
        rest => rest.is_none_or(<[u8]>::is_empty),
    }
}

/// What a field says that the server goes by; `false`: it is for Python to look at.
fn understand(field: usize, value: &[u8], said: &mut Said) -> bool {
    match field {
        HOST_FIELD => {
            said.has_host = true;
            is_plain_host(value)
        }
        CONTENT_LENGTH => {
            said.has_length = true;
            !value.is_empty() && value.len() <= LENGTH_DIGITS && value.iter().all(u8::is_ascii_digit)
        }
        TRANSFER_ENCODING => {
            said.is_chunked = true;
            value.eq_ignore_ascii_case(b"chunked")
        }
        CONNECTION => {
            let closes = value.eq_ignore_ascii_case(b"close");
            said.keeps = Some(!closes);
            closes || value.eq_ignore_ascii_case(b"keep-alive")
        }
        _ => field != EXPECT,
    }
}

/// The environ's key of a name that is not in the table: a new reference; `None`: it is left out, as is `Proxy`.
unsafe fn key_of(name: &[u8]) -> Result<Option<Object>, Left> {
    const PREFIX: &[u8] = b"HTTP_";
    if name.contains(&b'_') || name == b"proxy" {
        return Ok(None);
    }
    let mut key = [0; PREFIX.len() + NAME_BYTES];
    key[..PREFIX.len()].copy_from_slice(PREFIX);
    for (place, byte) in key[PREFIX.len()..].iter_mut().zip(name) {
        *place = if *byte == b'-' { b'_' } else { byte.to_ascii_uppercase() };
    }
    // SAFETY: GIL held.
    let key = unsafe { latin1(&key[..PREFIX.len() + name.len()]) };
    if key.is_null() { Err(Left::Failed) } else { Ok(Some(key)) }
}

/// A header line into the environ; `rest` begins with it. How long it is.
unsafe fn field(rest: &[u8], environ: Object, said: &mut Said) -> Result<usize, Left> {
    let name_end = run(rest, TOKEN);
    if name_end == 0 || name_end > NAME_BYTES || rest.get(name_end) != Some(&b':') {
        return Err(Left::ToPython);
    }
    let value_end = name_end + 1 + run(&rest[name_end + 1..], VALUE);
    if rest.get(value_end..value_end + 2) != Some(b"\r\n") {
        return Err(Left::ToPython);
    }
    let value = stripped(&rest[name_end + 1..value_end]);
    let mut lower = [0; NAME_BYTES];
    let name = &mut lower[..name_end];
    name.copy_from_slice(&rest[..name_end]);
    name.make_ascii_lowercase();
    // SAFETY: GIL held, a dict; the caller's promise.
    unsafe {
        let key = match FIELDS.iter().position(|&(text, _)| text == &*name) {
            Some(known) if !understand(known, value, said) => return Err(Left::ToPython),
            Some(known) => Some(ffi::Py_NewRef(KEYS[known].get())),
            None => key_of(name)?,
        };
        if let Some(key) = key {
            let before = ffi::PyDict_Size(environ);
            let result = put(environ, key, latin1(value));
            ffi::Py_DECREF(key);
            result?;
            if ffi::PyDict_Size(environ) == before {
                return Err(Left::ToPython); // it came before: both are to be joined, or refused
            }
        }
    }
    Ok(value_end + 2)
}

/// The whole head: where it ends, and what it says.
unsafe fn head(data: &[u8], environ: Object, limits: &Limits) -> Result<usize, Left> {
    // SAFETY: GIL held, a dict; the caller's promise.
    unsafe {
        let (mut at, is_http11) = line(data, environ, limits.line)?;
        let mut said = Said::default();
        let mut count = 0;
        while data.get(at) != Some(&b'\r') {
            at += field(&data[at..], environ, &mut said)?;
            count += 1;
        }
        at += 2;
        let is_whole = data.get(at - 1) == Some(&b'\n') && at <= limits.bytes && count <= limits.count;
        let is_framed = !said.is_chunked || (is_http11 && !said.has_length);
        if !is_whole || !is_framed || (is_http11 && !said.has_host) {
            return Err(Left::ToPython);
        }
        let mut found = at << SHIFT;
        for (flag, is_set) in [
            (IS_HTTP11, is_http11),
            (KEEPS, said.keeps.map_or(is_http11, |keeps| keeps)),
            (HAS_BODY, said.has_length || said.is_chunked),
        ] {
            found |= if is_set { flag } else { 0 };
        }
        Ok(found)
    }
}

/// `_http_request(data, environ, max_line, max_bytes, max_count)`: a number, or None, after which the environ has something of it.
pub(super) unsafe extern "C-unwind" fn read(_m: Object, args: *const Object, n: ffi::Py_ssize_t) -> Object {
    // SAFETY: a fastcall with the GIL; the bytes do not change, and the caller keeps them.
    unsafe {
        if n != 5 || ffi::PyBytes_CheckExact(*args) == 0 || ffi::PyDict_CheckExact(*args.add(1)) == 0 {
            return error::set(ffi::PyExc_TypeError, "_http_request() takes bytes, a dict and three numbers");
        }
        let [data, environ, most_line, most_bytes, most_count] = std::array::from_fn(|i| *args.add(i));
        let [line, bytes, count] = [most_line, most_bytes, most_count].map(|number| ffi::PyLong_AsSize_t(number));
        if !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        let start = ffi::PyBytes_AS_STRING(data).cast::<u8>();
        let data = std::slice::from_raw_parts(start, ffi::PyBytes_Size(data) as usize);
        match head(data, environ, &Limits { line, bytes, count }) {
            Ok(found) => ffi::PyLong_FromSize_t(found),
            Err(Left::ToPython) => none(),
            Err(Left::Failed) => ptr::null_mut(),
        }
    }
}
