//! Invalidation by unsafe methods (RFC 9111 section 4.4).

use super::fields::Fields;
use super::request::CacheRequest;
use crate::base::slice_ext::SliceExt;
use crate::wire::host::split_port;

/// The request targets whose objects a response to this request invalidates: the request's own, and those of `Location`
/// and `Content-Location` if they have the same origin. None for safe methods and errors.
pub fn targets(request: &CacheRequest<'_>, status: u16, response: Fields<'_>) -> Vec<Vec<u8>> {
    let is_safe = matches!(request.method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"CONNECT");
    if is_safe || !(200..400).contains(&status) {
        return Vec::new();
    }
    let references = ["location", "content-location"].into_iter().filter_map(|name| response.first(name));
    let mut targets = vec![request.target.to_vec()];
    for target in references.filter_map(|reference| resolve(request, reference)) {
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    targets
}

/// The request target of a reference, if it has the origin of the request.
fn resolve(request: &CacheRequest<'_>, reference: &[u8]) -> Option<Vec<u8>> {
    let fragment = memchr::memchr(b'#', reference).unwrap_or(reference.len());
    let reference = reference.prefix(fragment);
    let scheme: &[u8] = if request.is_https { b"https:" } else { b"http:" };
    let after_scheme = match reference.split_at_checked(scheme.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(scheme) => rest,
        _ => reference,
    };
    if let Some(rest) = after_scheme.strip_prefix(b"//") {
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let path = rest.suffix(end);
        let target = if path.starts_with(b"/") { path.to_vec() } else { [b"/", path].concat() };
        return is_own_authority(request, rest.prefix(end)).then_some(target);
    }
    match reference {
        [] => None,
        [b'/', ..] => Some(reference.to_vec()),
        // It has another scheme, or a path that would have to be normalised.
        _ if reference.contains(&b':') || reference.starts_with(b".") || reference.starts_with(b"?") => None,
        _ => {
            let path = memchr::memchr(b'?', request.target).unwrap_or(request.target.len());
            let directory = memchr::memrchr(b'/', request.target.prefix(path))?;
            Some([request.target.prefix(directory + 1), reference].concat())
        }
    }
}

fn is_own_authority(request: &CacheRequest<'_>, authority: &[u8]) -> bool {
    let is_port = |port: &[u8]| *port == *request.port.to_string().as_bytes();
    let default: &[u8] = if request.is_https { b"443" } else { b"80" };
    let (host, port) = split_port(authority);
    host.eq_ignore_ascii_case(request.host) && is_port(port.filter(|port| !port.is_empty()).unwrap_or(default))
}
