//! A connection to whatever the driver is: one server, or all servers of a cluster.

use super::connect::{self, Server};
use super::connection::Connection;
use super::shards::client::{ClusterClient, Difficulty, WatchedMap};
use super::target::Target;
use redis::{ProtocolVersion, RedisResult, Value};

/// See the module.
pub(super) enum Channel {
    /// One server.
    Single(Box<Connection>),
    /// A cluster.
    Cluster(Box<ClusterClient>),
}

impl Channel {
    /// Finds the servers and connects to them. Those of a cluster are connected to when they are asked.
    pub(super) fn open(target: &Target) -> RedisResult<Self> {
        Self::open_with(target, false)
    }

    /// The same; in a cluster, commands for a server that is away are refused with `CLUSTERDOWN`, and others are
    /// executed.
    pub(super) fn open_tolerant(target: &Target) -> RedisResult<Self> {
        Self::open_with(target, true)
    }

    fn open_with(target: &Target, is_tolerant: bool) -> RedisResult<Self> {
        if target.is_cluster() {
            return Ok(Self::Cluster(Box::new(ClusterClient::open(target, is_tolerant)?)));
        }
        Self::open_server(target, &connect::find(target)?)
    }

    /// Connects to this server.
    pub(super) fn open_server(target: &Target, server: &Server) -> RedisResult<Self> {
        Ok(Self::Single(Box::new(connect::open(target, server, ProtocolVersion::RESP2)?)))
    }

    /// Only the watched servers of a cluster. A command for another one is refused with `CLUSTERDOWN`.
    pub(super) fn watched(target: &Target, map: &WatchedMap) -> Self {
        Self::Cluster(Box::new(ClusterClient::watched(target, map)))
    }

    /// The single server, if it is one.
    pub(super) fn single(&mut self) -> Option<&mut Connection> {
        match self {
            Self::Single(connection) => Some(connection),
            Self::Cluster(_) => None,
        }
    }

    /// Sends commands and reads `count` replies, errors of the server among them. Together the replies may take
    /// `budget` bytes of memory.
    pub(super) fn ask_all(&mut self, packed: &[u8], count: usize, budget: usize) -> RedisResult<Vec<Value>> {
        match self {
            Self::Single(connection) => connection.ask_all(packed, count, budget),
            Self::Cluster(client) => client.ask_all(packed, count, budget),
        }
    }

    /// Sends commands. Each server has to reply within [`super::connection::DEADLINE`].
    pub(super) fn send(&mut self, packed: &[u8]) -> RedisResult<()> {
        match self {
            Self::Single(connection) => connection.send(packed),
            Self::Cluster(client) => client.send(packed),
        }
    }

    /// The next reply.
    pub(super) fn reply(&mut self, budget: &mut usize) -> RedisResult<Value> {
        match self {
            Self::Single(connection) => connection.reply(budget),
            Self::Cluster(client) => client.reply(budget),
        }
    }

    /// Closes the connection for reading.
    pub(super) fn give_up(&mut self) {
        match self {
            Self::Single(connection) => connection.give_up(),
            Self::Cluster(client) => client.give_up(),
        }
    }

    /// Whether the connection can be used for the next command.
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Single(connection) => connection.is_open(),
            Self::Cluster(client) => client.is_open(),
        }
    }

    /// Whether the last query took too long although bytes kept arriving.
    pub(super) fn is_late(&self) -> bool {
        match self {
            Self::Single(connection) => connection.is_late(),
            Self::Cluster(client) => client.is_late(),
        }
    }

    /// Ends a batch: the position of the data of each server of a cluster, by id.
    pub(super) fn finish(&mut self) -> Vec<(Box<str>, u64)> {
        match self {
            Self::Single(_) => Vec::new(),
            Self::Cluster(client) => client.finish(),
        }
    }

    /// Difficulties with servers of a cluster since the last call.
    pub(super) fn take_difficulties(&mut self) -> Vec<Difficulty> {
        match self {
            Self::Single(_) => Vec::new(),
            Self::Cluster(client) => client.take_difficulties(),
        }
    }
}
