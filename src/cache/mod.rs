//! Object cache: the rules of RFC 9111, the store that all cores share, and the collapse of concurrent fills.
//!
//! Nothing here does I/O or reads a clock: `now` is an argument. The way of a request:
//!
//! 1. [`key::KeyPattern::write`] writes the key; [`lookup::bypass`] tells whether the cache takes part at all.
//! 2. [`store::Store::get`] finds the stored response of the selected variant, and [`lookup::decide`] tells what may be
//!    done with it.
//! 3. A hit leaves through [`reply::Reply`], which evaluates the client's conditions and writes the head. The body is
//!    shared slices ([`body::Body`]).
//! 4. A miss joins [`fill::SharedFills`]: one request fills, the others read its response ([`live`]) or get the old object.
//! 5. [`storability::admit`] tells whether the response may be stored, [`body::BodyBuilder`] collects it, and
//!    [`store::Store::insert`] admits it.
//!
//! Sources: RFC 9110 (conditions and ranges), RFC 9111 (caching), RFC 9211 (`Cache-Status`), RFC 9213
//! (`CDN-Cache-Control`), RFC 5861 (stale responses), x0d's object cache (options, states, headers).

// Bytes of clients and backends pass here: none of them may stop a core.
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
pub mod collapse;
pub mod conditional;
pub mod directives;
pub mod fields;
pub mod fill;
pub mod freshness;
pub mod invalidation;
pub mod key;
pub mod live;
pub mod lookup;
pub mod object;
pub mod options;
pub mod portable;
pub mod purge;
pub mod quota;
pub mod refresh;
pub mod reply;
pub mod status;
pub mod storability;
pub mod store;
mod structured;
pub mod vary;
mod way;

#[cfg(test)]
mod tests;
