//! Tests: tables by section of the RFCs, simulations with seeds, and a comparison with another implementation.

mod collapse;
mod conditional;
mod live;
mod oracle;
mod parts;
mod refresh;
mod reuse;
mod storability;
mod store;

use super::fields::Fields;
use super::freshness::Times;
use super::object::Object;
use super::options::Options;
use super::request::CacheRequest;
use super::storability::{CacheResponse, Refusal, admit};
use super::vary::RequestValues;
use crate::base::clock::Moment;
use crate::wire::body::BodyLength;
use httparse::Header;
use std::time::{Duration, SystemTime};

/// Sat, 05 Sep 2026 00:00:00 GMT: every test's time zero.
fn zero() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_788_566_400)
}

/// Seconds after time zero.
fn at(seconds: u64) -> SystemTime {
    zero() + Duration::from_secs(seconds)
}

/// The date this many seconds after time zero.
fn http_date(seconds: i64) -> String {
    let offset = Duration::from_secs(seconds.unsigned_abs());
    httpdate::fmt_http_date(if seconds < 0 { zero() - offset } else { zero() + offset })
}

/// Lines `Name: value`.
fn parse(lines: &str) -> Vec<Header<'_>> {
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    let pairs = lines.map(|line| line.split_once(':').expect("a colon"));
    pairs.map(|(name, value)| Header { name, value: value.trim().as_bytes() }).collect()
}

fn options() -> Options {
    Options { is_enabled: true, ..Options::default() }
}

fn get<'a>(target: &'a str, fields: &'a [Header<'a>]) -> CacheRequest<'a> {
    CacheRequest { app: "app", ..CacheRequest::get("h", target, fields) }
}

fn response<'a>(status: u16, fields: &'a [Header<'a>], len: usize) -> CacheResponse<'a> {
    let times = Times { requested_at: zero(), received_at: zero(), received_at_wall: zero() };
    CacheResponse { status, phrase: "OK", fields: Fields(fields), body: BodyLength::Sized(len as u64), times }
}

/// The object of `GET /` with these lines, received at time zero.
fn store_with(request: &str, status: u16, lines: &str, body: &[u8], options: &Options) -> Result<Object, Refusal> {
    let (request, lines) = (parse(request), parse(lines));
    let mut pending = admit(&get("/", &request), &response(status, &lines, body.len()), options)?;
    pending.push(body, Moment::ZERO).expect("a body of the length that is stated");
    Ok(pending.finish().expect("a whole body"))
}

fn object(lines: &str) -> Object {
    store_with("", 200, lines, b"0123456789", &options()).expect("a cacheable response")
}
