//! Log lines about members.

use crate::cluster::{Cluster, Member};
use crate::health::ProbeFault;

/// A log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    /// A member was taken out of service.
    pub(super) is_down: bool,
    /// Whether it is a warning.
    pub(super) is_warning: bool,
    pub(super) text: String,
}

impl Notice {
    fn new(is_warning: bool, cluster: &Cluster, member: &Member, text: &str) -> Self {
        Self { is_down: false, is_warning, text: format!("{}: backend {} {text}", cluster.key, member.url) }
    }

    pub(super) fn down(cluster: &Cluster, member: &Member, fault: ProbeFault) -> Self {
        let fall = cluster.options.health.fall.max(1);
        let text = match fall {
            1 => format!("is down: a health probe failed: {fault}"),
            _ => format!("is down: {fall} health probes in a row failed: {fault}"),
        };
        Self { is_down: true, ..Self::new(true, cluster, member, &text) }
    }

    pub(super) fn up(cluster: &Cluster, member: &Member, was_down: bool) -> Self {
        let rise = cluster.options.health.rise.max(1);
        let text = match was_down {
            true => format!("is up again: {rise} health probes in a row were good"),
            false => format!("is alive: {rise} health probes in a row were good, so its dead marks end"),
        };
        Self::new(false, cluster, member, &text)
    }

    pub(super) fn up_disabled(cluster: &Cluster, member: &Member) -> Self {
        let text = "is up again and stays disabled until an operator enables it (health.stickyOffline)";
        Self::new(true, cluster, member, text)
    }

    pub(super) fn unwatched(cluster: &Cluster, member: &Member) -> Self {
        Self::new(false, cluster, member, "was down and serves again: probes are off")
    }

    pub(super) fn foreign(cluster: &Cluster, member: &Member) -> Self {
        let text = "was down and serves again: another checker of Redis (hchecker) decides about it now, by dead marks";
        Self::new(false, cluster, member, text)
    }

    pub(super) fn ejection_over(cluster: &Cluster, member: &Member) -> Self {
        Self::new(false, cluster, member, "gets requests again: its ejection is over")
    }
}
