//! A configuration at work: what its rules make of a request and of its response. Pure, and without an allocation in the
//! steady state: all memory is in a [`Workspace`], of which a worker has one.

mod auth;
mod compression;
mod configuration;
mod evaluation;
mod head;
mod load;
mod reply;
mod run;
mod statistics;
mod stick_table;
mod variables;
mod view;

pub use compression::Coding;
pub use configuration::{Configuration, Needs};
pub use evaluation::{Dice, Evaluation, Outcome};
pub use load::{FrontendLoad, Visit};
pub use reply::Reply;
pub use statistics::{StatisticsPage, StatisticsProxy};
pub use view::Facts;

pub(super) use configuration::{ServedProxy, ServedServer};
pub(super) use head::is_managed;
pub(super) use reply::ErrorPage;
pub(super) use stick_table::StickTable;

use super::program::Scratch;
use head::Head;
use std::sync::Arc;

/// The name under which the identifier of a request stands among its variables: none that a rule could write.
const UNIQUE_ID: &str = " unique-id";

/// The name under which the target stands there as it came, where rules ask for it.
const CAPTURED_URI: &str = " uri";

/// How many evaluations are kept for requests to come.
const MOST_SPARES: usize = 1024;

/// The memory of a worker for rules.
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
    /// What spares hold.
    nothing: Arc<Configuration>,
}

impl Workspace {
    /// Takes the response of this node that the last [`Outcome`] spoke of. It is to come back.
    pub fn take_reply(&mut self) -> Reply {
        std::mem::take(&mut self.reply)
    }

    /// It comes back.
    pub fn put_reply(&mut self, reply: Reply) {
        self.reply = reply;
    }

    /// Takes this head of a response as it is.
    pub fn pass_response(&mut self, head: &[u8]) {
        self.response.load(head);
    }

    /// The head of the request as the rules have left it; `None` if they have not changed it.
    pub fn changed_request(&self) -> Option<&[u8]> {
        self.request.is_changed().then(|| self.request.bytes())
    }

    /// The head of the response as the rules have left it.
    pub fn response(&self) -> &[u8] {
        self.response.bytes()
    }

    /// The status of that head.
    pub fn response_status(&self) -> u16 {
        self.response.status().unwrap_or(500)
    }

    /// Bytes that its buffers hold.
    pub fn capacity(&self) -> usize {
        let heads = self.request.capacity() + self.response.capacity() + self.reply.capacity();
        let spares: usize = self.spares.iter().map(|spare| spare.capacity()).sum();
        self.scratch.capacity() + heads + self.text.capacity() + self.login.capacity() + spares
    }

    /// Takes an evaluation back that is over.
    pub fn take_back(&mut self, mut evaluation: Box<Evaluation>) {
        if self.spares.len() < MOST_SPARES {
            evaluation.clear(&self.nothing);
            self.spares.push(evaluation);
        }
    }
}
