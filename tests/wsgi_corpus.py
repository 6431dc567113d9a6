"""Requests that are malformed, smuggle, or lie at an edge: bytes, what answers them, what the app sees.

An entry is (name, bytes, statuses, requests that reach the application as "METHOD path body").
Where the last status is an error of the server's (400, 408, 413, ...), the connection has to be closed
behind it; what follows in the bytes is never read as a request.
"""

from __future__ import annotations

# What is behind each request that has to be the last: never to be seen by the application.
BEHIND = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

H = b"Host: a\r\n"
TE = b"Transfer-Encoding: chunked\r\n"


def get(line: bytes, headers: bytes = H) -> bytes:
    return line + b"\r\n" + headers + b"\r\n"


def post(headers: bytes, body: bytes = b"") -> bytes:
    return b"POST /p HTTP/1.1\r\n" + H + headers + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    return post(TE, body)


#: Answered by the application; the connection goes on.
GOOD = (
    ("plain", get(b"GET / HTTP/1.1"), [200], ["GET / "]),
    ("two", get(b"GET /a HTTP/1.1") + get(b"GET /b HTTP/1.1"), [200, 200], ["GET /a ", "GET /b "]),
    ("empty line before", b"\r\n" + get(b"GET /a HTTP/1.1"), [200], ["GET /a "]),
    ("empty line between", get(b"GET /a HTTP/1.1") + b"\r\n" + get(b"GET /b HTTP/1.1"), [200, 200], ["GET /a ", "GET /b "]),
    ("own method", get(b"BREW /pot HTTP/1.1"), [200], ["BREW /pot "]),
    ("odd method token", get(b"M!#$%&'*+-.^_`|~1 / HTTP/1.1"), [200], ["M!#$%&'*+-.^_`|~1 / "]),
    ("HTTP/1.2 is 1.1", get(b"GET / HTTP/1.2"), [200], ["GET / "]),
    ("1.0 keep-alive", get(b"GET /a HTTP/1.0", b"Connection: Keep-Alive\r\n") + get(b"GET /b HTTP/1.1"), [200, 200], ["GET /a ", "GET /b "]),
    ("absolute-form", get(b"GET http://b.example:80/x?q HTTP/1.1"), [200], ["GET /x "]),
    ("absolute-form without path", get(b"GET http://b.example?q HTTP/1.1"), [200], ["GET / "]),
    ("absolute-form, other case", get(b"GET HTTP://b.example/ HTTP/1.1"), [200], ["GET / "]),
    ("asterisk-form", get(b"OPTIONS * HTTP/1.1"), [200], []),
    ("escapes", get(b"GET /%41%2fb%FF HTTP/1.1"), [200], ["GET /A/b\xff "]),
    ("query with odd escape", get(b"GET /?%zz HTTP/1.1"), [200], ["GET / "]),
    ("empty Host", get(b"GET / HTTP/1.1", b"Host:\r\n"), [200], ["GET / "]),
    ("Host of IPv6", get(b"GET / HTTP/1.1", b"Host: [::1]:80\r\n"), [200], ["GET / "]),
    ("header without value", get(b"GET / HTTP/1.1", H + b"X:\r\n"), [200], ["GET / "]),
    ("header in latin-1", get(b"GET / HTTP/1.1", H + b"X: \xe9\xff\r\n"), [200], ["GET / "]),
    ("white space around value", get(b"GET / HTTP/1.1", H + b"X: \t a \t\r\n"), [200], ["GET / "]),
    ("length", post(b"Content-Length: 3\r\n", b"abc") + get(b"GET / HTTP/1.1"), [200, 200], ["POST /p abc", "GET / "]),
    ("length 0", post(b"Content-Length: 0\r\n") + get(b"GET / HTTP/1.1"), [200, 200], ["POST /p ", "GET / "]),
    ("length with zeros", post(b"Content-Length: 003\r\n", b"abc"), [200], ["POST /p abc"]),
    ("body that is a request", post(b"Content-Length: 35\r\n", BEHIND), [200], ["POST /p " + BEHIND.decode()]),
    ("body of a GET", get(b"GET / HTTP/1.1", H + b"Content-Length: 1\r\n") + b"x", [200], ["GET / x"]),
    ("chunks", chunked(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n") + get(b"GET / HTTP/1.1"), [200, 200], ["POST /p abcde", "GET / "]),
    ("no chunk", chunked(b"0\r\n\r\n"), [200], ["POST /p "]),
    ("chunk size in hex", chunked(b"00000A\r\n0123456789\r\n000\r\n\r\n"), [200], ["POST /p 0123456789"]),
    ("chunk size in small hex", chunked(b"a\r\n0123456789\r\n0\r\n\r\n"), [200], ["POST /p 0123456789"]),
    ("chunk of CRLF", chunked(b"4\r\n\r\n\r\n\r\n0\r\n\r\n"), [200], ["POST /p \r\n\r\n"]),
    ("chunk extension", chunked(b'3;a;b=c;d="e\\";\t"\r\nabc\r\n0;x\r\n\r\n'), [200], ["POST /p abc"]),
    ("chunk extension with spaces", chunked(b"3 ; a = b\r\nabc\r\n0\r\n\r\n"), [200], ["POST /p abc"]),
    ("trailers", chunked(b"1\r\na\r\n0\r\nX: y\r\nContent-Length: 5\r\n\r\n") + get(b"GET / HTTP/1.1"), [200, 200], ["POST /p a", "GET / "]),
    ("Chunked in capitals", post(b"Transfer-Encoding: CHUNKED\r\n", b"0\r\n\r\n"), [200], ["POST /p "]),
    ("Expect, body at once", post(b"Expect: 100-Continue\r\nContent-Length: 3\r\n", b"abc"), [200], ["POST /p abc"]),
    ("name with underscore is left out", get(b"GET / HTTP/1.1", H + b"Content_Length: 5\r\n"), [200], ["GET / "]),
)  # fmt: skip

#: Answered by the application as the last one of its connection.
LAST = (
    ("close", get(b"GET / HTTP/1.1", H + b"Connection: close\r\n"), [200], ["GET / "]),
    ("close in a list", get(b"GET / HTTP/1.1", H + b"Connection: foo , CLOSE\r\n"), [200], ["GET / "]),
    ("close in two lines", get(b"GET / HTTP/1.1", H + b"Connection: foo\r\nConnection: close\r\n"), [200], ["GET / "]),
    ("close beats keep-alive", get(b"GET / HTTP/1.1", H + b"Connection: keep-alive, close\r\n"), [200], ["GET / "]),
    ("1.0", get(b"GET / HTTP/1.0", b""), [200], ["GET / "]),
    ("1.0 with Expect", get(b"GET / HTTP/1.0", b"Expect: 100-continue\r\n"), [200], ["GET / "]),
)  # fmt: skip


def bad_line(name: str, line: bytes, status: int = 400, headers: bytes = H):
    return (name, get(line, headers), [status], [])


def bad_header(name: str, header: bytes, status: int = 400):
    return (f"header: {name}", get(b"GET / HTTP/1.1", H + header), [status], [])


def bad_length(name: str, headers: bytes, status: int = 400):
    return (f"length: {name}", post(headers), [status], [])


def bad_chunk(name: str, body: bytes, status: int = 400):
    return (f"chunk: {name}", chunked(body), [status], ["POST /p !"])


#: Refused by the server. "!" as the body: reading it raised in the application.
BAD = (
    # Request lines.
    bad_line("HTTP/0.9", b"GET /"),
    bad_line("no version", b"GET / "),
    bad_line("two spaces", b"GET  / HTTP/1.1"),
    bad_line("tab", b"GET\t/ HTTP/1.1"),
    bad_line("space behind", b"GET / HTTP/1.1 "),
    bad_line("space before", b" GET / HTTP/1.1"),
    bad_line("space in target", b"GET /a b HTTP/1.1"),
    bad_line("no method", b" / HTTP/1.1"),
    bad_line("method is no token", b"G(T / HTTP/1.1"),
    bad_line("method with NUL", b"G\0T / HTTP/1.1"),
    bad_line("small version", b"GET / http/1.1"),
    bad_line("version of two digits", b"GET / HTTP/1.10"),
    bad_line("version without minor", b"GET / HTTP/1"),
    bad_line("version with plus", b"GET / HTTP/+1.1"),
    bad_line("version 2.0", b"GET / HTTP/2.0", 505),
    bad_line("version 0.9", b"GET / HTTP/0.9", 505),
    bad_line("fragment", b"GET /#a HTTP/1.1"),
    bad_line("NUL in target", b"GET /\0 HTTP/1.1"),
    bad_line("CR in target", b"GET /\ra HTTP/1.1"),
    bad_line("8 bits in target", b"GET /\xff HTTP/1.1"),
    bad_line("DEL in target", b"GET /\x7f HTTP/1.1"),
    bad_line("half an escape", b"GET /%4 HTTP/1.1"),
    bad_line("no escape", b"GET /%zz HTTP/1.1"),
    bad_line("relative target", b"GET a HTTP/1.1"),
    bad_line("query only", b"GET ?a HTTP/1.1"),
    bad_line("authority-form", b"GET a.example:80 HTTP/1.1"),
    bad_line("other scheme", b"GET ftp://a/ HTTP/1.1"),
    bad_line("absolute without host", b"GET http:///x HTTP/1.1"),
    bad_line("absolute with port only", b"GET http://:80/x HTTP/1.1"),
    bad_line("absolute with user", b"GET http://u@a/ HTTP/1.1"),
    bad_line("asterisk for GET", b"GET * HTTP/1.1"),
    bad_line("CONNECT", b"CONNECT a.example:443 HTTP/1.1", 501),
    ("two empty lines", b"\r\n\r\n" + get(b"GET / HTTP/1.1"), [400], []),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", [505], []),
    ("TLS hello", b"\x16\x03\x01\x02\0\1\0\1\xfc\x03\x03\r\n\r\n", [400], []),
    ("long line", get(b"GET /" + b"a" * 8300 + b" HTTP/1.1"), [414], []),
    ("long line without end", b"GET /" + b"a" * 9000, [414], []),
    # Line ends.
    ("LF behind the line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", [400], []),
    ("LF everywhere", b"GET / HTTP/1.1\nHost: a\n\n", [400], []),
    ("LF at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\n", [400], []),
    ("LF in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\nY: b\r\n\r\n", [400], []),
    ("LF LF CR LF", b"GET / HTTP/1.1\r\nHost: a\n\r\n\r\n", [400], []),
    ("LF before the line", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", [400], []),
    ("CR before the line", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", [400], []),
    # Headers.
    bad_header("CR in value", b"X: a\rb\r\n"),
    bad_header("CR CR LF", b"X: a\r\r\n"),
    bad_header("NUL in value", b"X: a\0b\r\n"),
    bad_header("control in value", b"X: a\x01b\r\n"),
    bad_header("DEL in value", b"X: a\x7f\r\n"),
    bad_header("NUL in name", b"X\0: a\r\n"),
    bad_header("folded", b"X: a\r\n b\r\n"),
    bad_header("folded by tab", b"X: a\r\n\tb\r\n"),
    bad_header("folded length", b"Content-Length:\r\n 5\r\n"),
    bad_header("space before colon", b"X : a\r\n"),
    bad_header("tab before colon", b"Content-Length\t: 5\r\n"),
    bad_header("space in name", b"X Y: a\r\n"),
    bad_header("8 bits in name", b"X\xff: a\r\n"),
    bad_header("no name", b": a\r\n"),
    bad_header("no colon", b"X\r\n"),
    bad_header("quote in name", b'"X": a\r\n'),
    bad_header("too many", b"".join(b"X%d: a\r\n" % n for n in range(101)), 431),
    bad_header("too long", b"X: " + b"a" * 66000 + b"\r\n", 431),
    ("headers without end", b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 12000, [431], []),
    ("first header folded", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", [400], []),
    bad_header("Expect of something", b"Expect: 200-maybe\r\n", 417),
    # Host.
    bad_line("no Host", b"GET / HTTP/1.1", headers=b""),
    bad_line("no Host, absolute-form", b"GET http://a/ HTTP/1.1", headers=b""),
    bad_line("two Hosts", b"GET / HTTP/1.1", headers=H + H),
    bad_line("two Hosts, other case", b"GET / HTTP/1.1", headers=H + b"hOST: b\r\n"),
    bad_line("two Hosts in 1.0", b"GET / HTTP/1.0", headers=H + H),
    bad_line("Host with path", b"GET / HTTP/1.1", headers=b"Host: a/b\r\n"),
    bad_line("Host with user", b"GET / HTTP/1.1", headers=b"Host: u@a\r\n"),
    bad_line("Host with space", b"GET / HTTP/1.1", headers=b"Host: a b\r\n"),
    bad_line("Host with odd port", b"GET / HTTP/1.1", headers=b"Host: a:80x\r\n"),
    bad_line("Host with half an escape", b"GET / HTTP/1.1", headers=b"Host: a%4\r\n"),
    # Where the body ends.
    bad_length("twice, the same", b"Content-Length: 5\r\nContent-Length: 5\r\n"),
    bad_length("twice, differing", b"Content-Length: 5\r\nContent-Length: 6\r\n"),
    bad_length("list", b"Content-Length: 5, 5\r\n"),
    bad_length("list, differing", b"Content-Length: 5, 6\r\n"),
    bad_length("plus", b"Content-Length: +5\r\n"),
    bad_length("minus", b"Content-Length: -5\r\n"),
    bad_length("hex", b"Content-Length: 0x5\r\n"),
    bad_length("point", b"Content-Length: 5.0\r\n"),
    bad_length("underscore", b"Content-Length: 1_0\r\n"),
    bad_length("empty", b"Content-Length:\r\n"),
    bad_length("word", b"Content-Length: chunked\r\n"),
    bad_length("space inside", b"Content-Length: 5 5\r\n"),
    bad_length("superscript two", b"Content-Length: \xb2\r\n"),
    bad_length("quoted", b'Content-Length: "5"\r\n'),
    bad_length("more than 64 bits", b"Content-Length: 18446744073709551621\r\n", 413),
    bad_length("more than allowed", b"Content-Length: 100001\r\n", 413),
    bad_length("and coding", b"Content-Length: 5\r\n" + TE),
    bad_length("coding and it", TE + b"Content-Length: 5\r\n"),
    bad_length("and coding, other case", b"content-length: 5\r\ntRANSFER-eNCODING: chunked\r\n"),
    bad_length("and unknown coding", b"Content-Length: 5\r\nTransfer-Encoding: x\r\n"),
    bad_length("coding twice", TE + TE),
    bad_length("coding list", b"Transfer-Encoding: chunked, chunked\r\n"),
    bad_length("coding not last", b"Transfer-Encoding: chunked, gzip\r\n"),
    bad_length("coding identity", b"Transfer-Encoding: identity\r\n"),
    bad_length("coding chunked, identity", b"Transfer-Encoding: chunked, identity\r\n"),
    bad_length("coding identity behind", TE + b"Transfer-Encoding: identity\r\n"),
    bad_length("coding unknown", b"Transfer-Encoding: x\r\n"),
    bad_length("coding xchunked", b"Transfer-Encoding: xchunked\r\n"),
    bad_length("coding chunkedx", b"Transfer-Encoding: chunkedx\r\n"),
    bad_length("coding with parameter", b"Transfer-Encoding: chunked;q=1\r\n"),
    bad_length("coding quoted", b'Transfer-Encoding: "chunked"\r\n'),
    bad_length("coding empty", b"Transfer-Encoding:\r\n"),
    bad_length("coding with vertical tab", b"Transfer-Encoding: \x0bchunked\r\n"),
    bad_length("coding with no-break space", b"Transfer-Encoding: \xa0chunked\r\n"),
    bad_length("coding with CR", b"Transfer-Encoding: chunked\r\r\n"),
    bad_length("gzip, chunked", b"Transfer-Encoding: gzip, chunked\r\n", 501),
    bad_length("gzip in a line before", b"Transfer-Encoding: gzip\r\n" + TE, 501),
    ("length: coding in 1.0", b"POST /p HTTP/1.0\r\n" + TE + b"\r\n0\r\n\r\n", [400], []),
    # Chunks.
    bad_chunk("no size", b"\r\nabc\r\n0\r\n\r\n"),
    bad_chunk("no hex", b"g\r\nabc\r\n0\r\n\r\n"),
    bad_chunk("0x", b"0x3\r\nabc\r\n0\r\n\r\n"),
    bad_chunk("plus", b"+3\r\nabc\r\n0\r\n\r\n"),
    bad_chunk("minus", b"-1\r\nabc\r\n0\r\n\r\n"),
    bad_chunk("underscore", b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n"),
    bad_chunk("space before", b" 3\r\nabc\r\n0\r\n\r\n"),
    bad_chunk("space behind", b"3 \r\nabc\r\n0\r\n\r\n"),
    bad_chunk("size of 17 digits", b"00000000000000003\r\nabc\r\n0\r\n\r\n"),
    bad_chunk("size over 64 bits", b"ffffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
    bad_chunk("LF behind size", b"3\nabc\r\n0\r\n\r\n"),
    bad_chunk("CR behind size", b"3\rabc\r\n0\r\n\r\n"),
    bad_chunk("LF in extension", b"3;a\nbc\r\nabc\r\n0\r\n\r\n"),
    bad_chunk("CR in extension", b"3;a\rb\r\nabc\r\n0\r\n\r\n"),
    bad_chunk("NUL in extension", b"3;a\0\r\nabc\r\n0\r\n\r\n"),
    bad_chunk("empty extension", b"3;\r\nabc\r\n0\r\n\r\n"),
    bad_chunk("extension without value", b"3;a=\r\nabc\r\n0\r\n\r\n"),
    bad_chunk("open quote", b'3;a="b\r\nabc\r\n0\r\n\r\n'),
    bad_chunk("long extension", b"3;" + b"a" * 5000 + b"\r\nabc\r\n0\r\n\r\n"),
    bad_chunk("many extensions", (b"1;" + b"a" * 4000 + b"\r\nb\r\n") * 20 + b"0\r\n\r\n"),
    bad_chunk("data too long", b"3\r\nabcd\r\n0\r\n\r\n"),
    bad_chunk("data too short", b"4\r\nabc\r\n0\r\n\r\n"),
    bad_chunk("LF behind data", b"3\r\nabc\n0\r\n\r\n"),
    bad_chunk("nothing behind data", b"3\r\nabc0\r\n\r\n"),
    bad_chunk("LF at the end", b"0\r\n\n"),
    bad_chunk("LF LF", b"0\n\n"),
    bad_chunk("trailer without colon", b"0\r\nX\r\n\r\n"),
    bad_chunk("trailer folded", b"0\r\nX: a\r\n b\r\n\r\n"),
    bad_chunk("trailer with space", b"0\r\nX : a\r\n\r\n"),
    bad_chunk("trailer with CR", b"0\r\nX: a\rb\r\n\r\n"),
    bad_chunk("trailer with NUL", b"0\r\nX: \0\r\n\r\n"),
    bad_chunk("long trailers", b"0\r\n" + b"X: a\r\n" * 12000 + b"\r\n"),
    bad_chunk("more than allowed", b"%x\r\n" % 100_001 + b"a" * 50_000, 413),
    bad_chunk("more than allowed in parts", (b"8000\r\n" + b"a" * 0x8000 + b"\r\n") * 4, 413),
)  # fmt: skip

#: The client says that nothing more comes, in the middle.
CUT = (
    ("half a line", b"GET / HT", [400], []),
    ("half a head", b"GET / HTTP/1.1\r\nHost: a\r\n", [400], []),
    ("half a body", post(b"Content-Length: 5\r\n", b"abc"), [400], ["POST /p !"]),
    ("half a chunk", chunked(b"5\r\nabc"), [400], ["POST /p !"]),
    ("half a size", chunked(b"5"), [400], ["POST /p !"]),
    ("no last chunk", chunked(b"3\r\nabc\r\n"), [400], ["POST /p !"]),
    ("no end of trailers", chunked(b"0\r\n"), [400], ["POST /p !"]),
    ("nothing", b"", [], []),
    ("an empty line", b"\r\n", [], []),
)
