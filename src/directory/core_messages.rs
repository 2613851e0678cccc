//! What cores ask and tell the source of routes, by mail.

use super::SubscriberId;
use crate::base::clock::Moment;
use crate::cluster::Backend;
use std::net::IpAddr;
use std::sync::Arc;

/// A question of a core.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) core: SubscriberId,
    pub(super) host: Arc<str>,
    pub(super) client: Option<IpAddr>,
}

/// A member that a core has marked.
#[derive(Debug)]
pub(super) struct DeadMark {
    pub(super) host: Box<str>,
    pub(super) backend: Arc<Backend>,
    /// [`Moment::ZERO`] for a mark that is over before its time.
    pub(super) until: Moment,
}
