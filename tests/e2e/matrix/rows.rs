//! The rows.

/// A request and its answer.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// What it is about.
    pub(super) name: &'static str,
    /// What the client sends.
    pub(super) request: &'static str,
    /// What the backend must see.
    pub(super) backend_sees: &'static str,
    /// What the backend sends.
    pub(super) response: &'static str,
    /// Whether the backend closes the connection after it.
    pub(super) closes: bool,
    /// What the client must see.
    pub(super) client_sees: &'static str,
}

impl Row {
    /// The request's method.
    pub(super) fn method(&self) -> &'static str {
        self.request.split(' ').next().unwrap_or_default()
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: HOST\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A row about a request, whose answer does not matter.
const fn request(name: &'static str, request: &'static str, backend_sees: &'static str) -> Row {
    Row { name, request, backend_sees, response: OK, closes: false, client_sees: OK }
}

/// A row about an answer to a plain GET.
const fn response(name: &'static str, response: &'static str, client_sees: &'static str) -> Row {
    Row { name, request: GET, backend_sees: GET, response, closes: false, client_sees }
}

/// The same for an answer that the backend's closing ends.
const fn last_response(name: &'static str, bytes: &'static str, client_sees: &'static str) -> Row {
    Row { closes: true, ..response(name, bytes, client_sees) }
}

/// All rows.
pub(super) const ROWS: &[Row] = &[
    request("a plain GET", GET, GET),
    request(
        "names keep their case and order, values their bytes",
        "GET /a?b=c&d HTTP/1.1\r\nX-zULU: 1\r\nhOST: HOST\r\nx-Alpha:two  words\r\nX-Zulu: 2\r\nX-Empty:\r\n\r\n",
        "GET /a?b=c&d HTTP/1.1\r\nX-zULU: 1\r\nhOST: HOST\r\nx-Alpha: two  words\r\nX-Zulu: 2\r\nX-Empty:\r\n\r\n",
    ),
    request(
        "targets are not touched",
        "GET /%7Euser/../x//y/%zz?q=%20+&q HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET /%7Euser/../x//y/%zz?q=%20+&q HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ),
    request(
        "OPTIONS of the server",
        "OPTIONS * HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ),
    request(
        "a method nobody knows",
        "BREW /pot HTTP/1.1\r\nHost: HOST\r\nContent-Length: 3\r\n\r\ntea",
        "BREW /pot HTTP/1.1\r\nHost: HOST\r\nContent-Length: 3\r\n\r\ntea",
    ),
    request("an empty line before the request is forgiven", "\r\nGET / HTTP/1.1\r\nHost: HOST\r\n\r\n", GET),
    request(
        "a body with a Content-Length",
        "POST /p HTTP/1.1\r\nHost: HOST\r\nContent-Length: 11\r\nContent-Type: text/plain\r\n\r\nhello world",
        "POST /p HTTP/1.1\r\nHost: HOST\r\nContent-Length: 11\r\nContent-Type: text/plain\r\n\r\nhello world",
    ),
    request(
        "an empty body with a Content-Length",
        "POST /p HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n",
    ),
    request(
        "a GET with a body",
        "GET /p HTTP/1.1\r\nHost: HOST\r\nContent-Length: 3\r\n\r\nabc",
        "GET /p HTTP/1.1\r\nHost: HOST\r\nContent-Length: 3\r\n\r\nabc",
    ),
    request(
        "a body in chunks",
        "POST /p HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n005\r\npedia\r\nA\r\n in chunks\r\n0\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n13\r\nWikipedia in chunks\r\n0\r\n\r\n",
    ),
    request(
        "an empty body in chunks",
        "POST /p HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    request(
        "trailers of a request pass",
        "POST /p HTTP/1.1\r\nHost: HOST\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 7\r\nX-More: 8\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: HOST\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 7\r\nX-More: 8\r\n\r\n",
    ),
    request(
        "chunk extensions are dropped",
        "POST /p HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b;c=\"d\"\r\nab\r\n0;last\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    ),
    request(
        "hop-by-hop fields stay here, and those that Connection names",
        "GET / HTTP/1.1\r\nHost: HOST\r\nKeep-Alive: timeout=5\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\nconnection: x-OTHER\r\nX-Other: 3\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: HOST\r\nX-End: 2\r\n\r\n",
    ),
    request(
        "Connection cannot take Host or the length away",
        "POST / HTTP/1.1\r\nHost: HOST\r\nConnection: host, content-length\r\nContent-Length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 2\r\n\r\nab",
    ),
    request(
        "an upgrade without Connection is no upgrade",
        "GET / HTTP/1.1\r\nHost: HOST\r\nUpgrade: websocket\r\n\r\n",
        GET,
    ),
    request(
        "an HTTP/1.0 request is made an HTTP/1.1 one",
        "POST /p HTTP/1.0\r\nHost: HOST\r\nContent-Length: 2\r\n\r\nab",
        "POST /p HTTP/1.1\r\nHost: HOST\r\nContent-Length: 2\r\n\r\nab",
    ),
    request(
        "cookies are not merged",
        "GET / HTTP/1.1\r\nHost: HOST\r\nCookie: a=1\r\nAccept: x\r\nCookie: b=2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: HOST\r\nCookie: a=1\r\nAccept: x\r\nCookie: b=2\r\n\r\n",
    ),
    response(
        "names of an answer keep their case and order, the reason its words",
        "HTTP/1.1 200 Very Well, Thanks\r\nsERVER: x\r\nSet-Cookie: a=1; Path=/\r\nContent-Length: 2\r\nset-cookie: b=2\r\n\r\nok",
        "HTTP/1.1 200 Very Well, Thanks\r\nsERVER: x\r\nSet-Cookie: a=1; Path=/\r\nContent-Length: 2\r\nset-cookie: b=2\r\n\r\nok",
    ),
    response(
        "an answer without a reason",
        "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
    ),
    response(
        "an answer with a status nobody knows",
        "HTTP/1.1 299 Fine\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 299 Fine\r\nContent-Length: 0\r\n\r\n",
    ),
    response(
        "an answer in chunks",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    ),
    response(
        "trailers of an answer pass, chunk extensions do not",
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3;n=1\r\nabc\r\n0;e\r\nX-Sum: 9\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n",
    ),
    response(
        "hop-by-hop fields of an answer stay here",
        "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nContent-Length: 2\r\nProxy-Connection: a\r\nX-End: 1\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-End: 1\r\n\r\nok",
    ),
    response(
        "204 has no body",
        "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
    ),
    response(
        "304 has no body, whatever its length says",
        "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 1000\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 1000\r\n\r\n",
    ),
    Row {
        request: "HEAD / HTTP/1.1\r\nHost: HOST\r\n\r\n",
        backend_sees: "HEAD / HTTP/1.1\r\nHost: HOST\r\n\r\n",
        ..response(
            "the answer to HEAD has no body, whatever its length says",
            "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        )
    },
    Row {
        request: "HEAD / HTTP/1.1\r\nHost: HOST\r\n\r\n",
        backend_sees: "HEAD / HTTP/1.1\r\nHost: HOST\r\n\r\n",
        ..response(
            "the answer to HEAD has no body, though it would come in chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
        )
    },
    last_response(
        "an answer that ends with the connection",
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nto the end",
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nto the end",
    ),
    last_response(
        "an empty answer that ends with the connection",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
    ),
    last_response(
        "an HTTP/1.0 answer is made an HTTP/1.1 one",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ),
    last_response(
        "an answer with Connection: close",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        OK,
    ),
    Row {
        request: "GET / HTTP/1.0\r\nHost: HOST\r\n\r\n",
        backend_sees: GET,
        ..response(
            "chunks are undone for an HTTP/1.0 client",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 9\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nabcde",
        )
    },
    response(
        "an answer of two statuses that are not final",
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK,
    ),
];
