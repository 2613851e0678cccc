//! Redis Cluster: keys are distributed over shards by hash slots.
//!
//! [`slots`] computes the slot of a key, [`nodes`] parses `CLUSTER NODES`, [`commands`] finds the keys of commands, and
//! [`topology`] decides which server owns which slot; all of them are pure. [`client`] sends commands to the owners of
//! their keys, [`node_watcher`] watches one server for changes, [`finder`] finds the servers, and [`threads`] has their
//! threads.
//!
//! # Freshness
//!
//! Client tracking belongs to a connection, and a server reports only writes that it executes itself. So:
//!
//! * Every master is watched on a connection of its own, whether it has slots or not: a master without any may import
//!   keys. Look-ups are sent to watched servers only, and follow a redirection only to a watched server.
//! * A server replies only for slots that it owns, or that it imports if it is asked so. A map of slots that is too old
//!   therefore costs a redirection, never a wrong reply.
//! * While all masters are watched, every write is reported, whatever node owns the slot: before a slot moves by its earlier
//!   owner, afterwards by its new one.
//! * Once a master is watched again, or for the first time, there may have been unreported writes, so everything in use
//!   is read again. When a slot moves between watched masters, the hosts with keys in it are read again.
//! * A key without a watched owner is neither present nor absent: hosts that depend on it keep their known routes, and
//!   other hosts get the failure of a Redis that is away.

pub(super) mod client;
pub(super) mod commands;
pub(super) mod finder;
pub(super) mod node_watcher;
pub(super) mod nodes;
pub(super) mod slots;
pub(super) mod threads;
pub(super) mod topology;
