//! Object cache: the rules of RFC 9111, the store shared by all cores, and collapsed forwarding.
//!
//! This room does no I/O and reads no clock: `now` is an argument. The path of a request:
//!
//! 1. [`key::KeyPattern::write`] writes the key; [`lookup::bypass`] decides whether the cache takes part at all.
//! 2. [`store::Store::get`] finds the stored response of the selected variant, and [`lookup::decide`] decides about its
//!    reuse.
//! 3. A hit is served through [`reply::Reply`], which evaluates the client's conditions and writes the head. The body
//!    consists of shared slices ([`body::Body`]).
//! 4. A miss joins [`fill::SharedFills`]: one request fills, the others read its response ([`live`]) or get the old
//!    object.
//! 5. [`storability::admit`] decides whether the response may be stored, [`body::BodyBuilder`] collects it, and
//!    [`store::Store::insert`] stores it.
//!
//! Sources: RFC 9110 (conditions and ranges), RFC 9111 (caching), RFC 9211 (`Cache-Status`), RFC 9213
//! (`CDN-Cache-Control`), RFC 5861 (stale responses), x0d's object cache (options, states, headers).

// Bytes of clients and backends pass here, and none of them may stop a core.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::todo,
    clippy::unimplemented
)]
#![deny(clippy::indexing_slicing, clippy::string_slice)]

pub mod body;
pub mod bypass;
pub mod collapse;
pub mod conditional;
pub mod directives;
mod epochs;
pub mod fields;
pub mod fill;
pub mod freshness;
pub mod invalidation;
pub mod key;
pub mod live;
pub mod lookup;
pub mod object;
pub mod options;
pub mod parts;
pub mod portable;
pub mod purge;
pub mod quota;
pub mod refresh;
pub mod reply;
pub mod request;
pub mod status;
pub mod storability;
pub mod store;
mod structured;
pub mod tier;
mod unkeyed;
mod variants;
pub mod vary;
mod writes;

#[cfg(test)]
mod tests;
