//! Access to the admin service: pages of other sites are refused, under any name of this node, and requests without the
//! token if one is configured.

use super::{Bind, Response, Settings};
use crate::base::base64;
use crate::exchange::ServiceRequest;
use std::net::IpAddr;

/// Refuses a request that is not allowed.
pub(super) fn check(request: &ServiceRequest, path: &str, settings: &Settings) -> Result<(), Response> {
    // A load balancer requests these under any name of this node, or none, and gets no other information.
    if is_probe(request, path) {
        return Ok(());
    }
    let host = request.host.as_deref().and_then(|host| std::str::from_utf8(host).ok()).unwrap_or_default();
    if !is_own_name(host, settings) {
        let detail = "Host is neither an address nor localhost nor one of admin.hosts";
        return Err(Response::problem(403, detail));
    }
    if is_foreign(request, path, host) {
        return Err(Response::problem(403, "a page of another site asks"));
    }
    match &settings.token {
        Some(token) if !knows(request, token.reveal()) => Err(Response::problem(401, "admin.token is asked for")
            .with_field("WWW-Authenticate: Basic realm=\"sluice\", charset=\"UTF-8\"")),
        None if !matches!(request.method.as_str(), "GET" | "HEAD") && !is_local(settings) => {
            Err(Response::problem(403, "set admin.token: without it actions are taken on a loopback address only"))
        }
        _ => Ok(()),
    }
}

/// The client of a request, for the log: the address, and the user name that it has sent together with the token. A name
/// without the right token may be the token itself, sent in the wrong place: it is not logged.
pub(super) fn who(request: &ServiceRequest, settings: &Settings) -> String {
    let address = match (request.peer, request.uid) {
        (_, Some(uid)) => format!("user {uid} of this machine"),
        (Some(address), None) => address.to_string(),
        (None, None) => "-".to_owned(),
    };
    let token = settings.token.as_ref().filter(|token| knows(request, token.reveal()));
    let named = request.authorization.as_deref().and_then(|value| value.strip_prefix(b"Basic ")).and_then(decode);
    let name = named.as_deref().filter(|_| token.is_some()).and_then(|pair| pair.split(|byte| *byte == b':').next());
    let is_secret = |name: &[u8]| token.is_some_and(|token| is_equal(name, token.reveal().as_bytes()));
    let name = name.filter(|name| !is_secret(name)).unwrap_or_default();
    let origin =
        request.origin.as_deref().map_or_else(String::new, |origin| format!(" from {}", origin.escape_ascii()));
    if name.is_empty() { address + &origin } else { format!("{} at {address}{origin}", name.escape_ascii()) }
}

/// Whether a request asks for liveness or readiness.
pub(super) fn is_probe(request: &ServiceRequest, path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz") && matches!(request.method.as_str(), "GET" | "HEAD")
}

fn is_local(settings: &Settings) -> bool {
    settings.bind.as_ref().is_some_and(Bind::is_local)
}

/// Whether this name cannot be made to resolve to this node by a third party. Under a name of its own, a foreign page
/// could send requests through a browser that can reach this node.
fn is_own_name(host: &str, settings: &Settings) -> bool {
    let name = without_port(host);
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || settings.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host.ends_with(']') => &host[..colon],
        _ => host,
    }
}

fn is_foreign(request: &ServiceRequest, path: &str, host: &str) -> bool {
    let is_other = |origin: &[u8]| {
        let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
        authority.is_none_or(|authority| !authority.eq_ignore_ascii_case(host.as_bytes()))
    };
    let site = request.fetch_site.as_deref();
    // A link of another site may lead to the dashboard: that site cannot read the page.
    let is_visit = request.fetch_mode.as_deref() == Some(b"navigate") && path == "/" && request.method == "GET";
    request.origin.as_deref().is_some_and(is_other)
        || site.is_some_and(|site| !is_visit && !matches!(site, b"same-origin" | b"none"))
}

/// Whether the request has the token: `Bearer TOKEN`, or `Basic` with the token as the password, as browsers and
/// exporters for HAProxy send it.
fn knows(request: &ServiceRequest, token: &str) -> bool {
    let Some(authorization) = request.authorization.as_deref() else { return false };
    let Some(space) = authorization.iter().position(|byte| *byte == b' ') else { return false };
    let (scheme, value) = (&authorization[..space], authorization[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return is_equal(value, token.as_bytes());
    }
    let Some(decoded) = scheme.eq_ignore_ascii_case(b"basic").then(|| decode(value)).flatten() else { return false };
    let password = decoded.iter().position(|byte| *byte == b':').map(|colon| &decoded[colon + 1..]);
    password.is_some_and(|password| is_equal(password, token.as_bytes()))
}

/// A comparison in constant time.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let difference = one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b));
    one.len() == other.len() && std::hint::black_box(difference) == 0
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    base64::decode(text, &mut bytes).map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(bind: &str, token: Option<&str>) -> Settings {
        Settings {
            bind: Some(bind.parse().expect("an address")),
            token: token.map(Into::into),
            hosts: vec!["edge.test".to_owned()],
            ..Settings::off()
        }
    }

    fn request(method: &str, host: &str) -> ServiceRequest {
        ServiceRequest { method: method.to_owned(), host: Some(host.into()), ..ServiceRequest::default() }
    }

    fn status(request: &ServiceRequest, path: &str, settings: &Settings) -> u16 {
        check(request, path, settings).err().map_or(200, |refusal| refusal.status)
    }

    #[test]
    fn only_names_that_lead_nowhere_else_are_taken() {
        let settings = settings("127.0.0.1:9100", None);
        let table = [
            ("127.0.0.1:9100", 200),
            ("[::1]:9100", 200),
            ("[::1]", 200),
            ("localhost", 200),
            ("LOCALHOST:1", 200),
            ("edge.test:9100", 200),
            ("evil.test", 403),
            ("127.0.0.1.evil.test:9100", 403),
            ("", 403),
        ];
        for (host, expected) in table {
            assert_eq!(status(&request("GET", host), "/v1/status", &settings), expected, "{host}");
        }
    }

    #[test]
    fn probes_need_no_host_and_accept_any() {
        let settings = settings("10.0.0.1:9100", Some("s3cret"));
        for host in ["lb-target.example.com", ""] {
            for path in ["/healthz", "/readyz"] {
                assert_eq!(status(&request("GET", host), path, &settings), 200, "{host} {path}");
                assert_eq!(status(&request("HEAD", host), path, &settings), 200, "{host} {path}");
                assert_eq!(status(&request("POST", host), path, &settings), 403, "{host} {path}");
            }
        }
        let without_host = ServiceRequest { host: None, ..request("GET", "") };
        assert_eq!(status(&without_host, "/readyz", &settings), 200);
        assert_eq!(status(&without_host, "/v1/status", &settings), 403);
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let settings = settings("127.0.0.1:9100", None);
        let table = [
            (Some("http://127.0.0.1:9100"), None, 200),
            (Some("http://127.0.0.1:80"), None, 403),
            (Some("null"), None, 403),
            (None, Some("cross-site"), 403),
            (None, Some("same-site"), 403),
            (None, Some("none"), 200),
            (None, Some("same-origin"), 200),
        ];
        for (origin, site, expected) in table {
            let request = ServiceRequest {
                origin: origin.map(Into::into),
                fetch_site: site.map(Into::into),
                ..request("POST", "127.0.0.1:9100")
            };
            assert_eq!(status(&request, "/v1/reload", &settings), expected, "{origin:?} {site:?}");
        }
    }

    #[test]
    fn a_link_of_another_site_leads_to_the_dashboard_and_to_nothing_else() {
        let settings = settings("127.0.0.1:9100", None);
        let table = [
            ("GET", "/", "navigate", 200),
            ("GET", "/", "cors", 403),
            ("GET", "/v1/config", "navigate", 403),
            ("POST", "/", "navigate", 403),
        ];
        for (method, path, mode, expected) in table {
            let request = ServiceRequest {
                fetch_site: Some(b"cross-site".to_vec()),
                fetch_mode: Some(mode.into()),
                ..request(method, "127.0.0.1:9100")
            };
            assert_eq!(status(&request, path, &settings), expected, "{method} {path} {mode}");
        }
    }

    #[test]
    fn the_log_names_the_client() {
        let request = |authorization: Option<&str>| ServiceRequest {
            peer: Some("10.0.0.7".parse().expect("an address")),
            authorization: authorization.map(Into::into),
            ..request("POST", "")
        };
        let basic = |pair: &[u8]| {
            let mut text = b"Basic ".to_vec();
            base64::encode(pair, false, &mut text);
            String::from_utf8(text).expect("ASCII")
        };
        let with_token = settings("0.0.0.0:9100", Some("s3cret"));
        for (authorization, expected) in [
            ("Bearer s3cret".to_owned(), "10.0.0.7"),
            (basic(b"admin:s3cret"), "admin at 10.0.0.7"),
            (basic(b":s3cret"), "10.0.0.7"),
            (basic(b"admin:other"), "10.0.0.7"),
            // The token in the wrong place is not logged.
            (basic(b"s3cret:"), "10.0.0.7"),
            (basic(b"s3cret"), "10.0.0.7"),
            (basic(b"s3cret:s3cret"), "10.0.0.7"),
        ] {
            assert_eq!(who(&request(Some(&authorization)), &with_token), expected, "{authorization}");
        }
        assert_eq!(who(&request(None), &with_token), "10.0.0.7");
        assert_eq!(who(&request(Some(&basic(b"k3y:"))), &settings("127.0.0.1:9100", None)), "10.0.0.7");
    }

    #[test]
    fn a_token_is_asked_for_by_either_scheme_and_not_by_probes() {
        let settings = settings("0.0.0.0:9100", Some("s3cret"));
        let table = [
            (None, "/v1/status", 401),
            (None, "/healthz", 200),
            (None, "/readyz", 200),
            (None, "/readyz/", 401),
            (Some("Bearer s3cret"), "/v1/status", 200),
            (Some("bearer  s3cret"), "/v1/status", 200),
            (Some("Bearer s3cre"), "/v1/status", 401),
            (Some("Bearer s3cret2"), "/v1/status", 401),
            (Some("Basic YWRtaW46czNjcmV0"), "/v1/status", 200),
            (Some("Basic YWRtaW46czNjcmV1"), "/v1/status", 401),
            (Some("Basic ???"), "/v1/status", 401),
            (Some("s3cret"), "/v1/status", 401),
        ];
        for (authorization, path, expected) in table {
            let request =
                ServiceRequest { authorization: authorization.map(Into::into), ..request("GET", "10.0.0.1:9100") };
            assert_eq!(status(&request, path, &settings), expected, "{authorization:?} {path}");
        }
    }

    #[test]
    fn without_a_token_actions_are_for_loopback_alone() {
        for (bind, expected) in
            [("127.0.0.1:9100", 200), ("[::1]:9100", 200), ("unix:/run/admin.sock", 200), ("0.0.0.0:9100", 403)]
        {
            let settings = settings(bind, None);
            assert_eq!(status(&request("POST", "127.0.0.1:9100"), "/v1/reload", &settings), expected, "{bind}");
            for method in ["PUT", "DELETE", "LOCK"] {
                assert_eq!(status(&request(method, "127.0.0.1:9100"), "/director/x", &settings), expected, "{bind}");
            }
            assert_eq!(status(&request("GET", "127.0.0.1:9100"), "/v1/status", &settings), 200, "{bind}");
        }
    }
}
