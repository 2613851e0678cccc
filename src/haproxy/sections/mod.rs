//! Parsing of sections into the model.

mod arguments;
mod bind;
mod captures;
mod global;
mod lines;
mod loader;
mod proxy;
mod proxy_policy;
mod proxy_rules;
mod proxy_words;
mod references;
mod scope;
mod server;
mod small;

pub(super) use bind::BIND_WORDS;
pub(super) use global::{GLOBAL_WORDS, OTHER_GLOBAL_WORDS};
pub(super) use loader::{SECTIONS, is_section, load_lines};
pub(super) use proxy_words::proxy_words;
pub(super) use server::SERVER_WORDS;
pub(super) use small::SMALL_WORDS;

use super::keyword::Treatment;
use super::position::Position;
use std::borrow::Cow;

/// The finding about a keyword.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its position.
    pub at: Position,
    /// The keyword, which may consist of several words.
    pub word: String,
    /// How it is treated.
    pub treatment: Treatment,
    /// The reason; empty if it is supported.
    pub note: Cow<'static, str>,
    /// The index of its section in the order of the files.
    pub section: u32,
}
