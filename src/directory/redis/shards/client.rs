//! A connection to a cluster: commands go to the owners of their keys, and replies come in the order of the commands.
//!
//! Redirections are followed. `MOVED` means that the map is too old; `ASK` that a slot is in migration and the key is
//! not at its owner any more.

use super::super::address::Address;
use super::super::connect::{self, Role};
use super::super::connection::{Connection, MAX_REPLY};
use super::super::resp;
use super::super::target::Target;
use super::commands::{Unit, units};
use super::nodes::View;
use super::topology::{SlotMap, WatchedNode};
use redis::{ErrorKind, ProtocolVersion, RedisError, RedisResult, Value, cmd};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// The greatest number of redirections of one command.
const MAX_REDIRECTIONS: usize = 5;
/// Memory limit of replies that are read before their turn, in bytes.
const MAX_READ_AHEAD: usize = 4 * MAX_REPLY;

/// The map of the watched servers, as the directory's thread knows it.
#[derive(Clone, Debug)]
pub(in crate::directory::redis) struct WatchedMap(Arc<RwLock<Arc<SlotMap>>>);

impl Default for WatchedMap {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(Arc::new(SlotMap::empty()))))
    }
}

impl WatchedMap {
    pub(in crate::directory::redis) fn set(&self, map: Arc<SlotMap>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = map;
    }

    fn get(&self) -> Arc<SlotMap> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A difficulty with one server, for the directory's thread.
#[derive(Debug)]
pub(in crate::directory::redis) enum Difficulty {
    /// A watched server could not be reached, in this session.
    Unreadable { session: u64, problem: String },
    /// A command was redirected to a server that is not watched.
    Redirected(Address),
}

/// A connection to one server.
struct NodeConnection {
    connection: Connection,
    session: u64,
    /// Bytes of this batch, to be sent again if the connection turns out to be closed.
    sent: Vec<u8>,
    /// It was opened for this batch.
    is_fresh: bool,
    /// Replies that have not been read.
    outstanding: usize,
    /// Replies that were read before their turn.
    read_ahead: VecDeque<Value>,
    /// The time that is left for its replies, while others are read.
    left: Option<Duration>,
}

/// A unit whose replies have not been taken.
struct Sent {
    unit: Unit,
    address: Option<Address>,
}

/// See the module.
pub(in crate::directory::redis) struct ClusterClient {
    target: Target,
    /// Only these servers are asked. Without, the client finds the servers itself.
    watched: Option<WatchedMap>,
    /// A command for a server that cannot be asked is refused with `CLUSTERDOWN`. Otherwise that is an error, and ends
    /// the connection.
    is_tolerant: bool,
    map: Arc<SlotMap>,
    nodes: BTreeMap<Address, NodeConnection>,
    packed: Vec<u8>,
    queue: VecDeque<Sent>,
    ready: VecDeque<Value>,
    /// The server whose reply was read last.
    current: Option<Address>,
    /// A slot has moved since the map was made.
    is_stale: bool,
    difficulties: Vec<Difficulty>,
    is_open: bool,
    is_late: bool,
}

impl ClusterClient {
    /// A client that finds the servers itself.
    pub(in crate::directory::redis) fn open(target: &Target, is_tolerant: bool) -> RedisResult<Self> {
        let mut client = Self { is_tolerant, ..Self::new(target, None) };
        client.map = client.fetch_map()?;
        Ok(client)
    }

    /// A client for watched servers.
    pub(in crate::directory::redis) fn watched(target: &Target, map: &WatchedMap) -> Self {
        Self::new(target, Some(map.clone()))
    }

    fn new(target: &Target, watched: Option<WatchedMap>) -> Self {
        Self {
            target: target.clone(),
            is_tolerant: watched.is_some(),
            watched,
            map: Arc::new(SlotMap::empty()),
            nodes: BTreeMap::new(),
            packed: Vec::new(),
            queue: VecDeque::new(),
            ready: VecDeque::new(),
            current: None,
            is_stale: false,
            difficulties: Vec::new(),
            is_open: true,
            is_late: false,
        }
    }

    /// The map according to the first server that replies.
    fn fetch_map(&self) -> RedisResult<Arc<SlotMap>> {
        let known = self.map.nodes.iter().map(|node| node.address.clone());
        let mut last = away("no server is named");
        for address in known.chain(self.target.seeds()) {
            match fetch_view(&self.target, &address) {
                Ok(view) => {
                    let node = |(id, address): (&str, &Address)| WatchedNode {
                        id: id.into(),
                        address: address.clone(),
                        session: 0,
                    };
                    let nodes = view.masters().map(|master| node((&master.id, &master.address))).collect();
                    return Ok(Arc::new(SlotMap::new(nodes, std::iter::once(&view))));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A connection of its own to the owner of a key.
    pub(in crate::directory::redis) fn open_owner(target: &Target, key: &str) -> RedisResult<Connection> {
        let client = Self::open(target, false)?;
        let owner =
            client.map.owner(super::slots::slot_of(key.as_bytes())).ok_or_else(|| away("a slot has no owner"))?;
        connect::open_at(target, &owner.address, ProtocolVersion::RESP2)
    }

    /// The addresses of all known masters.
    pub(in crate::directory::redis) fn masters(&self) -> Vec<Address> {
        self.map.nodes.iter().map(|node| node.address.clone()).collect()
    }

    /// Sends commands to the owners of their keys.
    pub(in crate::directory::redis) fn send(&mut self, packed: &[u8]) -> RedisResult<()> {
        let units = units(packed).ok_or_else(|| RedisError::from((ErrorKind::Client, "these are no commands")))?;
        if let Some(watched) = &self.watched {
            self.map = watched.get();
            let map = &self.map;
            self.nodes.retain(|address, node| map.at(address).is_some_and(|known| known.session == node.session));
        } else if std::mem::take(&mut self.is_stale) {
            self.map = self.fetch_map()?;
        }
        self.packed = packed.to_vec();
        (self.current, self.is_late) = (None, false);
        self.nodes.values_mut().for_each(|node| {
            node.sent.clear();
            node.is_fresh = false;
        });
        let mut buffers: BTreeMap<Address, (Vec<u8>, usize)> = BTreeMap::new();
        for unit in units {
            let owner = match unit.slot {
                Some(slot) => self.map.owner(slot),
                None => self.map.nodes.first(),
            };
            let address = owner.map(|owner| owner.address.clone());
            if let Some(address) = &address {
                let (bytes, count) = buffers.entry(address.clone()).or_default();
                bytes.extend_from_slice(&packed[unit.bytes.clone()]);
                *count += unit.count;
            }
            self.queue.push_back(Sent { unit, address });
        }
        for (address, (mut bytes, mut count)) in buffers {
            if self.watched.is_some() {
                // It is asked last, so that the replies are no newer.
                cmd("ROLE").write_packed_command(&mut bytes);
                count += 1;
            }
            if let Err(error) = self.send_to(&address, bytes, count) {
                self.fail(&address, &error);
                if !self.is_tolerant {
                    self.is_open = false;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn send_to(&mut self, address: &Address, bytes: Vec<u8>, count: usize) -> RedisResult<()> {
        let is_new = !self.nodes.contains_key(address);
        let node = self.node(address)?;
        if node.connection.send(&bytes).is_err() && !is_new {
            self.nodes.remove(address);
            self.node(address)?.connection.send(&bytes)?;
        }
        let node = self.node(address)?;
        (node.sent, node.outstanding, node.left) = (bytes, count, None);
        Ok(())
    }

    /// The connection to a server, which is opened if there is none.
    fn node(&mut self, address: &Address) -> RedisResult<&mut NodeConnection> {
        if !self.nodes.contains_key(address) {
            let mut connection = connect::open_at(&self.target, address, ProtocolVersion::RESP2)?;
            let known = self.map.at(address);
            // Another server may be at the address of the watched one by now.
            if let Some(known) = known.filter(|_| self.watched.is_some())
                && let Ok(Value::BulkString(id)) = connection.ask(cmd("CLUSTER").arg("MYID"))
                && id != known.id.as_bytes()
            {
                return Err(away("another server responds there than the watched one"));
            }
            let node = NodeConnection {
                connection,
                session: known.map_or(0, |known| known.session),
                sent: Vec::new(),
                is_fresh: true,
                outstanding: 0,
                read_ahead: VecDeque::new(),
                left: None,
            };
            self.nodes.insert(address.clone(), node);
        }
        self.nodes.get_mut(address).ok_or_else(|| away("there is no connection"))
    }

    /// The next reply. Redirections are followed.
    pub(in crate::directory::redis) fn reply(&mut self, budget: &mut usize) -> RedisResult<Value> {
        loop {
            if let Some(value) = self.ready.pop_front() {
                return Ok(value);
            }
            let Some(Sent { unit, address }) = self.queue.pop_front() else {
                self.is_open = false;
                return Err(away("no reply is outstanding"));
            };
            match self.replies_to(&unit, address, budget) {
                Ok(values) => self.ready.extend(values),
                Err(error) if !self.is_tolerant || resp::is_too_long(&error) || self.is_late => {
                    self.is_open = false;
                    return Err(error);
                }
                Err(error) => {
                    let refusal = refusal(&error)?;
                    self.ready.extend(std::iter::repeat_n(refusal, unit.count));
                }
            }
        }
    }

    fn replies_to(&mut self, unit: &Unit, address: Option<Address>, budget: &mut usize) -> RedisResult<Vec<Value>> {
        let mut address = address.ok_or_else(|| away("no watched server owns the slot"))?;
        let mut values = self.take(&address, unit.count, budget);
        for _ in 0..MAX_REDIRECTIONS {
            match values.as_ref().map(|values| redirection(values, &address)) {
                Ok(Some((next, is_ask))) => {
                    values = self.follow(&next, unit, is_ask, budget);
                    address = next;
                }
                Ok(None) => break,
                Err(error) => {
                    let error = error.clone();
                    self.fail(&address, &error);
                    return Err(error);
                }
            }
        }
        values
    }

    /// The next replies of a server.
    fn take(&mut self, address: &Address, count: usize, budget: &mut usize) -> RedisResult<Vec<Value>> {
        self.switch_to(address);
        let mut values = Vec::with_capacity(count);
        while values.len() < count {
            let node = self.nodes.get_mut(address).ok_or_else(|| away("its connection is closed"))?;
            if let Some(value) = node.read_ahead.pop_front() {
                values.push(value);
                continue;
            }
            match node.connection.reply(budget) {
                Ok(value) => {
                    node.outstanding = node.outstanding.saturating_sub(1);
                    node.sent.clear();
                    values.push(value);
                }
                // An idle connection may be closed.
                Err(error) if !node.is_fresh && !node.sent.is_empty() && !error.is_timeout() => {
                    let (sent, outstanding) = (std::mem::take(&mut node.sent), node.outstanding);
                    self.nodes.remove(address);
                    let node = self.node(address)?;
                    node.connection.send(&sent)?;
                    node.outstanding = outstanding;
                }
                Err(error) => {
                    self.is_late = error.is_timeout() && node.connection.is_late();
                    return Err(error);
                }
            }
        }
        Ok(values)
    }

    /// The time limit of a server does not run while another one is read.
    fn switch_to(&mut self, address: &Address) {
        if self.current.as_ref() == Some(address) {
            return;
        }
        if let Some(node) = self.current.take().and_then(|current| self.nodes.get_mut(&current)) {
            node.left = Some(node.connection.time_left());
        }
        if let Some(node) = self.nodes.get_mut(address) {
            node.connection.set_time_left(node.left.take());
        }
        self.current = Some(address.clone());
    }

    /// Sends a unit once more, where a redirection leads.
    fn follow(&mut self, address: &Address, unit: &Unit, is_ask: bool, budget: &mut usize) -> RedisResult<Vec<Value>> {
        if self.watched.is_some() && self.map.at(address).is_none() {
            self.difficulties.push(Difficulty::Redirected(address.clone()));
            return Err(away("a server that is not watched has the key"));
        }
        let mut bytes = if is_ask { cmd("ASKING").get_packed_command() } else { Vec::new() };
        bytes.extend_from_slice(&self.packed[unit.bytes.clone()]);
        self.node(address)?;
        self.switch_to(address);
        let node = self.node(address)?;
        let mut read_ahead = MAX_READ_AHEAD;
        while node.outstanding > 0 {
            let value = node.connection.reply(&mut read_ahead)?;
            node.outstanding -= 1;
            node.read_ahead.push_back(value);
        }
        node.sent.clear();
        node.connection.send(&bytes)?;
        if is_ask {
            node.connection.reply(budget)?.extract_error()?;
        }
        let values = (0..unit.count).map(|_| node.connection.reply(budget)).collect();
        self.is_stale |= !is_ask;
        values
    }

    /// Sends commands and reads `count` replies, errors of the servers among them.
    pub(in crate::directory::redis) fn ask_all(
        &mut self,
        packed: &[u8],
        count: usize,
        mut budget: usize,
    ) -> RedisResult<Vec<Value>> {
        self.send(packed)?;
        let mut replies = Vec::with_capacity(count.min(1024));
        while replies.len() < count {
            replies.push(self.reply(&mut budget)?);
        }
        Ok(replies)
    }

    /// Ends a batch of watched servers: the positions of their data, by id.
    pub(in crate::directory::redis) fn finish(&mut self) -> Vec<(Box<str>, u64)> {
        let (mut offsets, mut failed) = (Vec::new(), Vec::new());
        let has_reply = |node: &NodeConnection| node.outstanding + node.read_ahead.len() > 0;
        let addresses: Vec<_> =
            self.nodes.iter().filter(|(_, node)| has_reply(node)).map(|(address, _)| address.clone()).collect();
        for address in addresses {
            match self.take(&address, 1, &mut { MAX_REPLY }) {
                Ok(values) => {
                    let offset = values.first().and_then(|reply| Role::read(reply).offset());
                    offsets.extend(self.map.at(&address).map(|node| node.id.clone()).zip(offset));
                }
                Err(error) => failed.push((address, error)),
            }
        }
        failed.into_iter().for_each(|(address, error)| self.fail(&address, &error));
        offsets
    }

    /// The difficulties since the last call.
    pub(in crate::directory::redis) fn take_difficulties(&mut self) -> Vec<Difficulty> {
        std::mem::take(&mut self.difficulties)
    }

    /// Records that a server failed.
    fn fail(&mut self, address: &Address, error: &RedisError) {
        // A redirection may be the cause, or a reply that is too long.
        let is_its_fault = self.nodes.remove(address).is_some() || error.is_io_error();
        if self.watched.is_none() {
            self.is_stale = true;
            return;
        }
        if let Some(known) = self.map.at(address).filter(|_| is_its_fault && !self.is_late && !resp::is_too_long(error))
        {
            let problem = format!("reading: {error}");
            self.difficulties.push(Difficulty::Unreadable { session: known.session, problem });
        }
    }

    /// Closes all connections.
    pub(in crate::directory::redis) fn give_up(&mut self) {
        self.is_open = false;
    }

    /// Whether commands can be sent.
    pub(in crate::directory::redis) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether the last failure is that of a reply that kept arriving, too slowly.
    pub(in crate::directory::redis) fn is_late(&self) -> bool {
        self.is_late
    }
}

/// The cluster as one of its servers sees it.
pub(super) fn fetch_view(target: &Target, address: &Address) -> RedisResult<View> {
    let mut connection = connect::open_at(target, address, ProtocolVersion::RESP2)?;
    let text: String = redis::from_redis_value(connection.ask(cmd("CLUSTER").arg("NODES"))?)?;
    Ok(View::parse(&text, address, target.is_encrypted()))
}

/// Where these replies redirect to, and whether for this time only.
fn redirection(values: &[Value], asked: &Address) -> Option<(Address, bool)> {
    values.iter().find_map(|value| {
        let Value::ServerError(error) = value else { return None };
        let is_ask = match error.code() {
            "MOVED" => false,
            "ASK" => true,
            _ => return None,
        };
        let place = error.details()?.split(' ').nth(1)?;
        Some((Address::parse(place, asked)?, is_ask))
    })
}

/// The error of a key whose server cannot be asked.
fn away(problem: &'static str) -> RedisError {
    (ErrorKind::Io, problem).into()
}

/// The refusal of a key whose server cannot be asked, as a reply.
fn refusal(error: &RedisError) -> RedisResult<Value> {
    log::debug!("redis: a part of the cluster cannot be asked: {error}");
    redis::parse_redis_value(b"-CLUSTERDOWN the server of the slot cannot be asked\r\n")
}
