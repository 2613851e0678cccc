//! A configuration at run time: its rules applied to requests and responses. Pure, and without an allocation in the
//! steady state: all memory is in a [`Workspace`], one for each worker.

mod auth;
mod compression;
mod configuration;
mod edits;
mod error_page;
mod evaluation;
mod head;
mod head_cookies;
mod head_line;
mod lists;
mod load;
mod local_response;
mod outcome;
mod persistence;
mod phases;
mod reply;
mod run;
mod statistics;
mod stick_table;
mod variables;
mod view;

pub use compression::Coding;
pub use configuration::{Configuration, Needs};
pub use evaluation::Evaluation;
pub use load::{FrontendLoad, Visit};
pub use outcome::{Dice, Outcome};
pub use reply::Reply;
pub use statistics::{StatisticsPage, StatisticsProxy};
pub use view::Facts;

pub(super) use configuration::{ServedProxy, ServedServer};
pub(super) use error_page::ErrorPage;
pub(super) use head_line::is_managed;
pub(super) use stick_table::StickTable;

use super::program::Scratch;
use head::Head;
use std::sync::Arc;

/// The variable with the id of a request: a name that no rule can use.
const UNIQUE_ID: &str = " unique-id";

/// The variable with the target as received, if rules need it.
const CAPTURED_URI: &str = " uri";

/// The number of evaluations kept for reuse.
const MOST_SPARES: usize = 1024;

/// A worker's memory for rules.
#[derive(Debug, Default)]
pub struct Workspace {
    scratch: Scratch,
    request: Head,
    response: Head,
    /// A rendered value.
    text: Vec<u8>,
    login: Vec<u8>,
    reply: Reply,
    #[expect(clippy::vec_box, reason = "it is the boxes that are used again")]
    spares: Vec<Box<Evaluation>>,
    /// The configuration of evaluations without a request.
    nothing: Arc<Configuration>,
}

impl Workspace {
    /// Takes this node's response for the last [`Outcome`]. It has to be returned.
    pub fn take_reply(&mut self) -> Reply {
        std::mem::take(&mut self.reply)
    }

    /// Returns the response for reuse.
    pub fn put_reply(&mut self, reply: Reply) {
        self.reply = reply;
    }

    /// Uses this head of a response unchanged.
    pub fn pass_response(&mut self, head: &[u8]) {
        self.response.load(head);
    }

    /// The head of the request after the rules; `None` if they have not changed it.
    pub fn changed_request(&self) -> Option<&[u8]> {
        self.request.is_changed().then(|| self.request.bytes())
    }

    /// The head of the response after the rules.
    pub fn response(&self) -> &[u8] {
        self.response.bytes()
    }

    /// The status of that head.
    pub fn response_status(&self) -> u16 {
        self.response.status().unwrap_or(500)
    }

    /// Capacity of its buffers in bytes.
    pub fn capacity(&self) -> usize {
        let heads = self.request.capacity() + self.response.capacity() + self.reply.capacity();
        let spares: usize = self.spares.iter().map(|spare| spare.capacity()).sum();
        self.scratch.capacity() + heads + self.text.capacity() + self.login.capacity() + spares
    }

    /// Takes back an evaluation that is over.
    pub fn take_back(&mut self, mut evaluation: Box<Evaluation>) {
        if self.spares.len() < MOST_SPARES {
            evaluation.clear(&self.nothing);
            self.spares.push(evaluation);
        }
    }
}
