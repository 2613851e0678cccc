//! The tables of the keywords of proxies.

mod general;
mod groups;
mod options;

use super::scope::{ProxyWord, Read};
use crate::haproxy::keyword::{Places, Treatment};

const D: u8 = Places::DEFAULTS.0;
const F: u8 = Places::FRONTEND.0;
const B: u8 = Places::BACKEND.0;

const fn word(name: &'static str, places: u8, treatment: Treatment, reason: &'static str, read: Read) -> ProxyWord {
    ProxyWord { name, places: Places(places), treatment, reason, read }
}

const fn ours(name: &'static str, places: u8, read: Read) -> ProxyWord {
    word(name, places, Treatment::Honoured, "", read)
}

const fn not(name: &'static str, places: u8, treatment: Treatment, reason: &'static str) -> ProxyWord {
    word(name, places, treatment, reason, Read::Nothing)
}

const LOG: &str = "the access log is sluice's own";
const KEEPALIVE: &str = "TCP keep-alive is always on, with the system's times";
const CAPTURE: &str = "kept for capture.req.hdr and capture.res.hdr; the access log has a headers setting of its own";

/// All keywords of proxies.
pub(in super::super) fn proxy_words() -> impl Iterator<Item = &'static ProxyWord> {
    general::WORDS.iter().chain(groups::WORDS).chain(options::WORDS)
}
