//! Judges methods and targets: those of clients, and those that rules make.

use super::field::is_token;
use crate::base::reason::FailureReason;

/// The longest method. Registered ones have at most 17 bytes.
const LONGEST_METHOD: usize = 32;

/// Methods that some recipients match regardless of case. They would disagree about the body of a variant spelling: a
/// recipient that reads `head` as HEAD sends none.
const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "PRI"];

/// Whether a request with this method would be taken: for heads that are written anew by rules.
pub fn is_method(method: &[u8]) -> bool {
    is_token(method) && std::str::from_utf8(method).is_ok_and(|method| check_method(method).is_ok())
}

/// Whether a request with this method may be sent twice (RFC 9110 section 9.2.2).
pub fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
}

/// Whether a request with this target in origin form, or the `*` of OPTIONS, would be taken.
pub fn is_target(method: &[u8], target: &[u8]) -> bool {
    let is_plain = target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#');
    is_plain && (target.first() == Some(&b'/') || (target == b"*" && method == b"OPTIONS"))
}

/// Whether a method may be forwarded (RFC 9110 section 9.1).
pub(super) fn check_method(method: &str) -> Result<(), FailureReason> {
    if matches!(method, "GET" | "POST" | "HEAD") {
        return Ok(());
    }
    let is_misspelt = || METHODS.iter().any(|known| known.eq_ignore_ascii_case(method));
    let has_small_letters = method.bytes().any(|byte| byte.is_ascii_lowercase());
    if method == "CONNECT" || method.len() > LONGEST_METHOD || (has_small_letters && is_misspelt()) {
        return Err(FailureReason::MethodRefused);
    }
    Ok(())
}

/// Splits a target into the authority, for an absolute URL, and the path with its query (RFC 9112 section 3.2).
pub(super) fn split_target<'b>(method: &str, target: &'b str) -> Result<(Option<&'b str>, &'b str), FailureReason> {
    if target.as_bytes().contains(&b'#') {
        return Err(FailureReason::BadTarget);
    }
    if target.as_bytes().first() == Some(&b'/') || (target == "*" && method == "OPTIONS") {
        return Ok((None, target));
    }
    split_absolute(method, target)
}

/// Splits an absolute URL, after the path form and the `*` of OPTIONS were excluded.
#[cold]
fn split_absolute<'b>(method: &str, target: &'b str) -> Result<(Option<&'b str>, &'b str), FailureReason> {
    let strip = |scheme: &str| match target.split_at_checked(scheme.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(scheme) => Some(rest),
        _ => None,
    };
    let rest = strip("http://").or_else(|| strip("https://")).ok_or(FailureReason::BadTarget)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.is_empty() || authority.contains('@') {
        return Err(FailureReason::BadTarget);
    }
    // OPTIONS without a path concerns the server as a whole (RFC 9112 section 3.2.4).
    let path = if path.is_empty() && method == "OPTIONS" { "*" } else { path };
    Ok((Some(authority), path))
}
