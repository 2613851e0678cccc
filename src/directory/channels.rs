//! What a source of routes is asked and told, by mail.

use super::{SubscriberId, certificates, handover};
use crate::base::clock::Moment;
use crate::cluster::Backend;
use crossbeam_channel::{Receiver, Sender};
use std::convert::Infallible;
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

/// What a source is told to do.
#[derive(Debug)]
pub(super) enum SourceCommand {
    Reload,
    /// Whatever is known of this host is to be read again. The answer is whether anything was.
    Flush(Arc<str>, Sender<bool>),
    /// The same, and the answer is whether all cores are told what it says now, once they are.
    Confirm(Arc<str>, Sender<bool>),
    /// The snapshot is another process's.
    Retire,
    /// What is known goes to the process that takes this one's place.
    Export(Sender<handover::Export>),
    Stop,
}

/// Where a source finds what it is asked and told to do.
#[derive(Debug)]
pub(super) struct RequestChannels {
    /// Ends when no [`super::Directory`] is left.
    pub(super) lookups: Receiver<Lookup>,
    pub(super) marks: Receiver<DeadMark>,
    pub(super) commands: Receiver<SourceCommand>,
    /// For a source that gives orders to itself.
    pub(super) own_commands: Sender<SourceCommand>,
    /// The clerk who knows the certificates.
    pub(super) certificates: Sender<certificates::CertificateCommand>,
    /// Dropped when the thread ends.
    pub(super) _alive: Sender<Infallible>,
}
