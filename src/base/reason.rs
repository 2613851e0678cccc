//! Reasons for which a request ends without a complete response of a backend.
//!
//! Error page, access log, `X-Debug-Error` header and counter are all made from this one enum.

use std::fmt;

macro_rules! reasons {
    ($( $(#[$doc:meta])* $variant:ident = $status:expr, $name:literal, $sentence:literal; )*) => {
        /// One variant for each way in which a request can fail.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FailureReason {
            $( $(#[$doc])* $variant, )*
        }

        impl FailureReason {
            /// Every reason, in the order of the enum.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )*];

            /// The status of the error response. It is 499, as in nginx's logs, if the client is gone, and 0 if a
            /// response had already begun: these two stand in logs only.
            pub const fn status(self) -> u16 {
                match self { $( Self::$variant => $status, )* }
            }

            /// The name in logs, headers and metrics: lower case, stable.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// One sentence for the error page.
            pub const fn sentence(self) -> &'static str {
                match self { $( Self::$variant => $sentence, )* }
            }
        }
    };
}

reasons! {
    // Failures of the client.
    /// A client sends plaintext to a port that speaks TLS.
    PlainToTls = 400, "plain_to_tls", "This port speaks TLS: its addresses begin with https.";
    /// The head does not follow RFC 9112: a bad byte, a bare LF, a folded line, a space before the colon.
    MalformedHead = 400, "malformed_head", "The request could not be read as HTTP.";
    /// The body's length is stated twice, wrongly, or in two ways (RFC 9112 section 6.3).
    AmbiguousLength = 400, "ambiguous_length", "The length of the request's body is not clear.";
    /// A chunk size, chunk extension or trailer that does not follow RFC 9112 section 7.1.
    MalformedChunk = 400, "malformed_chunk", "The body of the request could not be read as chunks.";
    /// A TRACE with a body (RFC 9110 section 9.3.8).
    UnexpectedBody = 400, "unexpected_body", "A request of this kind has no body.";
    /// The request target is neither a path, an absolute http URL, nor `*` of OPTIONS.
    BadTarget = 400, "bad_target", "The address of the request could not be read.";
    /// `Host` is missing in an HTTP/1.1 request, occurs twice, or is not a host name.
    BadHost = 400, "bad_host", "The request does not name its host clearly.";
    /// No frontend has this host. Hipache responds with 400 too.
    UnknownHost = 400, "unknown_host", "No website is configured at this address.";
    /// The certificate shown to the client, for the server name that it asked for, does not cover `Host`, and `Host`
    /// has a certificate of its own (RFC 9110 section 15.5.20).
    MisdirectedRequest = 421, "misdirected_request", "This connection was opened for another website.";
    /// A rule of a HAProxy file refuses the request (`deny`, `auth`). The rule may set another status.
    DeniedByRule = 403, "denied_by_rule", "The request is not allowed.";
    /// A rule of a HAProxy file closes the connection (`reject`, `silent-drop`).
    ClosedByRule = 0, "closed_by_rule", "The connection was closed by a rule.";
    /// The head did not arrive in time.
    HeadTimeout = 408, "head_timeout", "The request took too long to arrive.";
    /// The client stopped sending in the middle of the body.
    BodyTimeout = 408, "body_timeout", "The body of the request took too long to arrive.";
    /// The body came more slowly than `server.minBodyRate`.
    BodyTooSlow = 408, "body_too_slow", "The body of the request arrived too slowly.";
    /// The body is larger than `server.maxBodyBytes`.
    BodyTooLarge = 413, "body_too_large", "The body of the request is too large.";
    /// The chunk extensions are longer than `server.maxChunkExtensionBytes` allows.
    ExtensionsTooLarge = 413, "chunk_extensions_too_large", "The body of the request has too long chunk extensions.";
    /// The client has as many requests as the frontend's option `maxRequestsPerClient` allows.
    ClientLimit = 429, "client_limit", "There are too many requests from your address at once.";
    /// The client has sent more requests a second than the frontend's option `requestsPerSecondPerClient` allows.
    ClientRate = 429, "client_rate", "There are too many requests a second from your address.";
    /// There are more requests a second than the frontend's option `requestsPerSecond` allows, and none may wait
    /// (`requestsPerSecondWait`).
    FrontendRate = 429, "frontend_rate", "This website gets too many requests a second.";
    /// The target is longer than `server.maxUriBytes`.
    UriTooLong = 414, "uri_too_long", "The address of the request is too long.";
    /// The head has more lines than `server.maxHeaders`.
    TooManyHeaders = 431, "too_many_headers", "The header of the request has too many lines.";
    /// The trailer section is larger than `server.maxTrailerBytes`, or has too many lines.
    TrailersTooLarge = 431, "trailers_too_large", "The trailer of the request is too large.";
    /// The head is larger than `server.maxHeadBytes`.
    HeadTooLarge = 431, "head_too_large", "The header of the request is too large.";
    /// An `Expect` other than one `100-continue` (RFC 9110 section 10.1.1).
    ExpectationFailed = 417, "expectation_failed", "The expectation of the request cannot be met.";
    /// The method is CONNECT (this is no forward proxy), a known method in another case, or too long for a method.
    MethodRefused = 501, "method_refused", "The method of the request is not supported.";
    /// The request loops: its `Via` has this node's mark, so a backend of its frontend leads back to this node (RFC
    /// 9110 section 7.6.3; the status is from RFC 5842).
    LoopDetected = 508, "loop_detected", "The server of this website leads back to this node.";
    /// A transfer coding other than chunked.
    UnknownCoding = 501, "unknown_transfer_coding", "The transfer coding of the request is not supported.";
    /// The request is well-formed, but its major version is not HTTP/1.
    UnknownVersion = 505, "unknown_version", "The version of HTTP is not supported.";
    /// The client closed the connection before its response was complete.
    ClientGone = 499, "client_gone", "The client closed the connection.";
    /// The client closed its side in the middle of the request's body.
    ClientTruncated = 499, "client_truncated", "The client closed the connection in the middle of its request.";
    /// The client did not read its response for `server.bodyTimeout`, or read more slowly than `server.minBodyRate`.
    ClientStalled = 0, "client_stalled", "The client stopped reading.";

    // Failures of the backends.
    /// The frontend's list has no backends, or all have just been removed. Backends marked dead are still tried.
    NoBackend = 502, "no_backend_alive", "No server of this website is available.";
    /// The backend refused the connection, or the connection failed otherwise.
    ConnectFailed = 502, "connect_failed", "The server of this website could not be reached.";
    /// The backend's name could not be resolved.
    NameNotResolved = 502, "name_not_resolved", "The server of this website could not be found.";
    /// The TLS handshake with a backend of `https://` failed: it speaks no TLS, or its certificate does not match its
    /// URL.
    TlsFailed = 502, "tls_failed", "The server of this website could not prove its identity.";
    /// The backend closed the connection without a response.
    UpstreamClosed = 502, "upstream_closed", "The server of this website closed the connection without a response.";
    /// The backend's response does not follow RFC 9112.
    UpstreamMalformed = 502, "upstream_malformed", "The server of this website gave a response that could not be read.";
    /// The backend sent more informational responses than `server.maxInformationalResponses`.
    TooManyInformationalResponses = 502, "too_many_informational_responses", "The server of this website sent no final response.";
    /// The head of the backend's response is larger than `server.maxHeadBytes`, or has more lines than
    /// `server.maxHeaders`.
    UpstreamHeadTooLarge = 502, "upstream_head_too_large", "The server of this website gave too large a header.";
    /// The backend switched protocols without a request for it, or to another protocol than requested.
    UpgradeMismatch = 502, "upgrade_mismatch", "The server of this website changed to a protocol not asked for.";
    /// The backend did not accept the connection in time.
    ConnectTimeout = 504, "connect_timeout", "The server of this website could not be reached in time.";
    /// The backend did not begin its response in time.
    ResponseTimeout = 504, "response_timeout", "The server of this website took too long to respond.";
    /// The backend closed the connection in the middle of its response, or broke the framing of its body.
    UpstreamTruncated = 0, "upstream_truncated", "The response ended too early.";
    /// The backend sent nothing more of its response for `server.bodyTimeout`, or for `server.streamTimeout` if the
    /// response has no length.
    UpstreamStalled = 0, "upstream_stalled", "The response stalled.";

    // Failures of this node.
    /// No backend has room, or all sockets to it are in use, and the queue is full (`queueLimit`, `server.maxQueue`).
    QueueFull = 503, "queue_full", "The server of this website is too busy.";
    /// No backend had room within `queueTimeout`, or no socket to it became free within `connectTimeout`.
    QueueTimeout = 503, "queue_timeout", "The server of this website is too busy.";
    /// The frontend has the option `disabled`.
    ClusterDisabled = 503, "cluster_disabled", "This website is closed for maintenance.";
    /// No rule of the HAProxy file selects a backend for the request, and its frontend has no `default_backend`.
    NoBackendRule = 503, "no_backend_rule", "No server is configured for this address.";
    /// The client names a backend (`backend.header`, `backend.cookie`) that is not in the list, down or disabled.
    NamedBackendDown = 503, "named_backend_down", "The server that was asked for is not available.";
    /// The frontend has as many tunnels as its option `maxTunnels` allows.
    TunnelLimit = 503, "tunnel_limit", "The server of this website is too busy.";
    /// No socket could be opened: this node is out of file descriptors or memory.
    SocketsExhausted = 503, "sockets_exhausted", "This node is too busy.";
    /// All local ports towards the backend are in use.
    PortsExhausted = 503, "ports_exhausted", "This node is too busy.";
    /// All of `server.maxBufferBytes` was in use, and this request held a large part of it for long.
    BufferLimit = 503, "buffer_limit", "This node is too busy.";
    /// The route could not be looked up in time.
    RouteLookupOverloaded = 503, "route_lookup_overloaded", "This node could not look up the website.";
    /// The source of routes is away, and the route of this host is not in the snapshot.
    RouteSourceDown = 503, "route_source_down", "This node cannot look up the website at present.";
    /// The admin service of this node did not respond in time, or is overloaded.
    ServiceTimeout = 503, "service_timeout", "The admin service of this node is too busy.";
    /// The record of this host in the source of routes is not usable; the log names the fault.
    BadRoute = 502, "bad_route", "The configuration of this website is not usable.";
    /// The backend was removed from its list, and `server.tunnelDrain` is over.
    BackendRemoved = 0, "backend_removed", "The server of this website was taken out of service.";
    /// The tunnel was idle for `server.tunnelTimeout`.
    TunnelIdle = 0, "tunnel_idle", "The tunnel was idle for too long.";
    /// `server.drainTimeout` ended before the request did.
    Stopped = 503, "stopped", "This node is shutting down.";
}

impl FailureReason {
    /// Whether a backend, or the lack of one, made the request fail, so its operator should know.
    pub const fn is_of_backend(self) -> bool {
        use FailureReason::*;
        matches!(
            self,
            NoBackend
                | ConnectFailed
                | NameNotResolved
                | TlsFailed
                | UpstreamClosed
                | UpstreamMalformed
                | TooManyInformationalResponses
                | UpstreamHeadTooLarge
                | UpgradeMismatch
                | ConnectTimeout
                | ResponseTimeout
                | UpstreamTruncated
                | UpstreamStalled
                | QueueFull
        )
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::FailureReason;
    use std::collections::HashSet;

    #[test]
    fn names_are_distinct_and_statuses_known() {
        let names: HashSet<_> = FailureReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), FailureReason::ALL.len());
        for reason in FailureReason::ALL {
            let status = reason.status();
            assert!(status == 0 || (400..600).contains(&status), "{reason}: {status}");
            assert!(reason.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{reason}");
        }
    }
}
