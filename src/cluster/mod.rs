//! A cluster: its members, their backends, the state shared by all cores, and admission.
//!
//! [`Cluster`] is one list with its options, immutable; an edit makes a new one with the same [`MemberState`] of each
//! endpoint that stays and the same [`Admission`]. A [`Route`] is a cluster in the view of one host.

mod admission;
mod attributes;
mod backend;
mod backend_url;
#[expect(clippy::module_inception, reason = "the room is called after its main type")]
mod cluster;
mod demand;
mod edit;
mod endpoint;
mod history;
mod judgement;
mod member;
mod options;
mod recent_failures;
mod ring;
mod rotation;
mod route;
mod session;
mod slots;
#[cfg(test)]
mod slots_tests;

pub use admission::{
    Admission, ClientSlot, GrantSink, Granted, HeldToken, Joined, NodeTicket, Notice, Permit, Pick, Rates, TakenSlot,
    TenantKey, TenantSettings, Tenants, Ticket, TokenRequest, View, Waiter,
};
pub use attributes::{ATTRIBUTES, AttributeDefinition, AttributeError, Attributes, Role};
pub use backend::{Addresses, Backend, BackendId, IdleGauge};
pub use backend_url::{BackendUrl, BackendUrlError, without_attributes};
pub use cluster::Cluster;
pub use demand::{Demand, Obstacle, OwnedDemand, Service, Turn};
pub use edit::ClusterSpec;
pub use endpoint::Endpoint;
pub use history::{History, SECONDS, Second};
pub use judgement::{HealthWatcher, MemberHealth};
pub use member::{AdminState, Member, MemberState};
pub use options::{
    Adaptive, ClassRules, DEFINITIONS, Definition, ErrorPages, HashKey, MAX_COUNT, MAX_TIME, OnClientAbort,
    OptionError, Options, PageTexts, Queue, RetryCause, RetryCauses, Scheduler, Statuses, Timeouts, Waits, read_whole,
};
pub use recent_failures::{RecentFailure, RecentFailures};
pub use ring::{Ring, key_of};
pub use rotation::Rotation;
pub use route::{Mark, Route};
pub use session::set_session_secret;
