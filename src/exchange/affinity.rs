//! The preference of a request for a member: by a hashed part of the request, by a session cookie, or because the
//! client names one.

use super::request::Request;
use super::request_context::RequestContext;
use super::step_context::CommonState;
use crate::base::clock::Moment;
use crate::base::slice_ext::SliceExt;
use crate::cluster::{Cluster, Endpoint, HashKey, Member, Options, Scheduler, key_of};
use crate::wire::forwarded::Policy;
use arrayvec::ArrayString;
use std::fmt::Write;

/// The hash for the scheduler `hash`; 0 for the other schedulers.
pub(super) fn hash(request: &Request, options: &Options, policy: &Policy) -> u64 {
    if options.scheduler != Scheduler::Hash {
        return 0;
    }
    let part = match &options.hash {
        HashKey::Client => None,
        HashKey::Path => request.target().split(|byte| *byte == b'?').next(),
        HashKey::Header(name) => request.header(name),
        HashKey::Cookie(name) => request.cookie(name),
        HashKey::Parameter(name) => parameter(request.target(), name.as_bytes()),
        HashKey::Uri => Some(request.target()),
        HashKey::Segment => Some(first_segment(request.target())),
    };
    // A request without that part uses the key of its client.
    part.map_or_else(|| key_of_client(request, policy), key_of)
}

/// The key of a request's client: its address, as reported by trusted proxies.
#[cold]
fn key_of_client(request: &Request, policy: &Policy) -> u64 {
    let mut text = ArrayString::<64>::new();
    // The longest address has 45 characters.
    let _ = write!(text, "{}", request.forwarded_client(policy));
    key_of(text.as_bytes())
}

/// The value of the first parameter of a query with this name.
fn parameter<'t>(target: &'t [u8], name: &[u8]) -> Option<&'t [u8]> {
    let query = target.splitn(2, |byte| *byte == b'?').nth(1)?;
    let mut pairs = query.split(|byte| matches!(byte, b'&' | b';'));
    pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

fn first_segment(target: &[u8]) -> &[u8] {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    path.split(|byte| *byte == b'/').nth(1).unwrap_or_default()
}

/// The cookie value of the member that the request's session belongs to. `None` without a session.
pub(super) fn session(request: &Request, options: &Options) -> Option<u64> {
    let value = request.cookie(options.sticky_cookie.as_deref()?)?;
    u64::from_str_radix(std::str::from_utf8(value).ok()?, 16).ok()
}

/// The place of the member that the request's session belongs to, if that member serves only requests that select it.
pub(super) fn session_of_selected(request: &Request, cluster: &Cluster) -> Option<usize> {
    cluster.options.sticky_cookie.as_ref()?;
    let session = session(request, &cluster.options)?;
    cluster.members.iter().position(|member| member.session() == session && member.is_only_selected())
}

/// The member that a client in a trusted network names: `None` if it names none, and `Some(None)` if there is no such
/// member. A name is a URL of the list, or `host:port`. A client behind trusted proxies has to be in a trusted network
/// itself, since proxies pass on what any client sends.
pub(super) fn named(request: &Request, cluster: &Cluster, policy: &Policy) -> Option<Option<usize>> {
    let options = &cluster.options;
    if !request.is_trusted() || (options.backend_header.is_none() && options.backend_cookie.is_none()) {
        return None;
    }
    if !policy.trusts(request.forwarded_client(policy)) {
        return None;
    }
    let by_header = options.backend_header.as_deref().and_then(|name| request.header(name));
    let name = by_header.or_else(|| request.cookie(options.backend_cookie.as_deref()?))?;
    let is_called_so = |member: &Member| name == member.url.as_str().as_bytes() || is_at(name, member.url.endpoint());
    Some(cluster.members.iter().position(is_called_so))
}

/// Whether `host:port` is this endpoint: the host in any case, an IPv6 address with or without brackets.
fn is_at(name: &[u8], endpoint: &Endpoint) -> bool {
    let Some(colon) = memchr::memrchr(b':', name) else { return false };
    let host = name.prefix(colon);
    let host = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")).unwrap_or(host);
    host.eq_ignore_ascii_case(endpoint.host().as_bytes())
        && name.suffix(colon + 1) == itoa::Buffer::new().format(endpoint.port()).as_bytes()
}

/// The cookie with which a response binds the client to the member that served it.
pub(super) struct SessionCookie<'a> {
    name: &'a str,
    session: u64,
    is_secure: bool,
}

/// The session cookie of a response. `None` if the client is already at its member, or if its member is only full,
/// since the client returns there. `None` too if the client names its backend, which is no session.
pub(super) fn session_cookie<'a>(
    context: &RequestContext,
    common: &'a CommonState,
    now: Moment,
) -> Option<SessionCookie<'a>> {
    let (route, permit) = (common.route()?, common.permit.as_ref()?);
    let name = route.cluster.options.sticky_cookie.as_deref()?;
    let (request, demand) = (&context.request, context.demand(route));
    if demand.named.is_some() {
        return None;
    }
    let cluster = permit.cluster();
    let is_own = |session| cluster.members.iter().position(|member| member.session() == session);
    let own = session(request, &cluster.options).and_then(is_own);
    // The session's own member may be full. If it cannot serve at all, the session moves to the member that has served.
    let has_turn = |place: usize| {
        let role = cluster.members.get(place).map(Member::role);
        role.is_some_and(|role| role as u8 <= permit.member().role() as u8)
    };
    if own.is_some_and(|place| has_turn(place) && demand.obstacle(cluster, place, now).is_none()) {
        return None;
    }
    Some(SessionCookie { name, session: permit.member().session(), is_secure: request.is_secure() })
}

impl SessionCookie<'_> {
    /// Writes the field line.
    #[cold]
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let Self { name, session, .. } = self;
        let line = format!("Set-Cookie: {name}={session:016x}; Path=/; HttpOnly; SameSite=Lax{secure}\r\n");
        out.extend_from_slice(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_named_by_host_and_port() {
        let table = [
            ("http://[::1]:8080", "[::1]:8080", true),
            ("http://[::1]:8080", "::1:8080", true),
            ("http://App.internal", "app.INTERNAL:80", true),
            ("http://10.0.0.1:81", "10.0.0.1:81", true),
            ("http://10.0.0.1:81", "10.0.0.1:8", false),
            ("http://10.0.0.1:81", "10.0.0.1", false),
            ("http://10.0.0.1:81", "[10.0.0.1:81", false),
        ];
        for (url, name, expected) in table {
            let url = crate::cluster::BackendUrl::parse(url).expect("a good URL");
            assert_eq!(is_at(name.as_bytes(), url.endpoint()), expected, "{name}");
        }
    }

    #[test]
    fn the_first_segment_of_a_path() {
        for (target, segment) in [("/a/b", "a"), ("/a?b/c", "a"), ("/", ""), ("/?x", ""), ("*", "")] {
            assert_eq!(first_segment(target.as_bytes()), segment.as_bytes(), "{target}");
        }
    }
}
