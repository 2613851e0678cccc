//! The threads for the servers of a cluster, and the map of the servers for look-ups.

use super::super::address::Address;
use super::super::target::Target;
use super::super::{Event, Stop};
use super::client::WatchedMap;
use super::finder;
use super::node_watcher::NodeWatcher;
use super::topology::SlotMap;
use crate::base::clock::Clock;
use crossbeam_channel::Sender;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

/// See the module. Dropping it ends the threads.
pub(in crate::directory::redis) struct ShardThreads {
    target: Target,
    map: WatchedMap,
    find: Sender<Vec<Address>>,
    events: Sender<Event>,
    /// The watching threads by number.
    watchers: HashMap<u64, Sender<Infallible>>,
    clock: Clock,
}

impl ShardThreads {
    /// Starts the thread that finds the servers; `None` if the target is no cluster.
    pub(in crate::directory::redis) fn start(
        target: &Target,
        map: &WatchedMap,
        (events, stop): (&Sender<Event>, &Stop),
        clock: Clock,
    ) -> io::Result<Option<Self>> {
        if !target.is_cluster() {
            return Ok(None);
        }
        let find = finder::start(target, events.clone(), stop.clone())?;
        let (target, map, events) = (target.clone(), map.clone(), events.clone());
        Ok(Some(Self { target, map, find, events, watchers: HashMap::new(), clock }))
    }

    /// Finds the servers; these are known.
    pub(in crate::directory::redis) fn find(&self, known: Vec<Address>) {
        // If there is no room, the servers are being found.
        let _ = self.find.try_send(known);
    }

    /// Watches a server, with `waits` after a while.
    pub(in crate::directory::redis) fn watch(&mut self, address: Address, number: u64, waits: bool) {
        let (guard, stop) = Stop::new();
        let watcher = NodeWatcher {
            target: self.target.clone(),
            address,
            number,
            events: self.events.clone(),
            stop,
            clock: self.clock,
        };
        let started =
            std::thread::Builder::new().name("redis-watch".into()).spawn(move || watcher.run(waits)).map(drop);
        match started {
            Ok(()) => drop(self.watchers.insert(number, guard)),
            Err(error) => log::error!("redis: starting a thread that watches a server of the cluster: {error}"),
        }
    }

    /// Ends a watching thread.
    pub(in crate::directory::redis) fn unwatch(&mut self, number: u64) {
        self.watchers.remove(&number);
    }

    /// Sets the map for look-ups.
    pub(in crate::directory::redis) fn set_map(&self, map: Arc<SlotMap>) {
        self.map.set(map);
    }
}
