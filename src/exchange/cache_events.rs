//! What an exchange wants of the object cache, and which events of it matter.

use super::Exchange;
use super::state::State;
use super::store_request::StoreRequest;

impl Exchange {
    /// What the request wants of the object cache.
    pub fn store_request(&self) -> Option<StoreRequest> {
        match &self.state {
            State::AwaitingDisk(state) => Some(state.request()),
            State::AwaitingFill(state) => Some(state.request()),
            _ => None,
        }
    }

    /// Whether news of a fill are of use: the request waits for it, or for the disk, reads it, or is read itself.
    pub fn heeds_fill(&self) -> bool {
        let waits = matches!(&self.state, State::AwaitingFill(_) | State::AwaitingDisk(_));
        waits || matches!(&self.state, State::ServingLive(_) | State::ForwardingResponse(_))
    }
}
