//! Purges of the object cache on all nodes: the node that gets the request publishes it, and each node performs it and
//! reports.
//!
//! A purge is published in the channel `<prefix>sluice:purge` as a JSON object: `query` is the query of the admin
//! service, `reply` is the channel for results. Each node's result is an object with its `node` and either `purged` or
//! `error`. Channels of Redis store nothing: a node that is not subscribed at that moment misses the purge, so the
//! result has the number of receivers.

use super::connection::Connection;
use super::shards::client::ClusterClient;
use super::target::Target;
use super::{Pause, Stop, connect};
use crate::base::clock::Clock;
use crate::base::node_mark::node_mark;
use redis::{ErrorKind, ProtocolVersion, RedisResult, Value, cmd};
use serde::{Deserialize, Serialize};
use std::io;
use std::thread;
use std::time::Duration;

/// The limit of the wait for reports.
const PATIENCE: Duration = Duration::from_secs(3);

/// A published purge.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    query: String,
    reply: String,
}

/// The result of a purge on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeResult {
    /// The mark of the node.
    pub node: String,
    /// The number of purged objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purged: Option<usize>,
    /// The error, if the purge failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The result of a purge on all nodes.
#[derive(Debug)]
pub struct Purged {
    /// Number of processes that received it: a node has two during an upgrade.
    pub told: usize,
    /// Their results, in order of arrival.
    pub results: Vec<NodeResult>,
}

fn channel(target: &Target) -> String {
    format!("{}sluice:purge", target.prefix)
}

/// Makes this node perform the purges of all nodes, in its own thread, for the life of the process. `purge` gets the
/// query of the admin service, and returns the number of objects or an error.
pub fn listen(target: Target, purge: impl Fn(&str) -> Result<usize, String> + Send + 'static) -> io::Result<()> {
    let run = move || {
        let (_lives, stop) = crossbeam_channel::bounded(0);
        let (stop, mut pause, mut was_told) = (Stop(stop), Pause::default(), false);
        loop {
            let error = match subscribe(&target, &channel(&target)) {
                Ok(mut connection) => {
                    pause.reset();
                    was_told = false;
                    hear(&mut connection, &target, &purge)
                }
                Err(error) => error,
            };
            if !std::mem::replace(&mut was_told, true) {
                log::warn!(
                    "redis: hearing of purges from {target}: {error}; those of other nodes are missed until then"
                );
            }
            pause.wait(&stop);
        }
    };
    thread::Builder::new().name("redis-purge".into()).spawn(run).map(drop)
}

/// Makes all nodes purge the objects of the query, this node included, and waits at most three seconds for their
/// results.
pub fn order(target: &Target, query: &str) -> RedisResult<Purged> {
    let reply = format!("{}:{:016x}", channel(target), fastrand::u64(..));
    let mut replies = subscribe(target, &reply)?;
    let order = Order { query: query.to_owned(), reply };
    let told = match publish(target, &channel(target), &order)? {
        Value::Int(told) => usize::try_from(told).unwrap_or(0),
        _ => 0,
    };
    let clock = Clock::new();
    let deadline = clock.now() + PATIENCE;
    let mut results = Vec::new();
    while results.len() < told && clock.now() < deadline {
        if let Some(message) = replies.receive()?.as_ref().and_then(payload) {
            results.extend(serde_json::from_slice::<NodeResult>(message));
        }
    }
    Ok(Purged { told, results })
}

/// Performs purges until the connection fails.
fn hear(
    connection: &mut Connection,
    target: &Target,
    purge: &impl Fn(&str) -> Result<usize, String>,
) -> redis::RedisError {
    let mut is_asked = false;
    loop {
        let received = match connection.receive() {
            Ok(received) => received,
            Err(error) => return error,
        };
        match received {
            Some(reply) => {
                is_asked = false;
                let Some(order) = payload(&reply).and_then(|message| serde_json::from_slice::<Order>(message).ok())
                else {
                    continue;
                };
                let (purged, error) = match purge(&order.query) {
                    Ok(purged) => (Some(purged), None),
                    Err(error) => (None, Some(error)),
                };
                log::info!("redis: purge {:?} of another node or this one: {:?} objects", order.query, purged);
                let result = NodeResult { node: node_mark().to_owned(), purged, error };
                if let Err(error) = publish(target, &order.reply, &result) {
                    log::warn!("redis: telling what a purge came to: {error}");
                }
            }
            None if is_asked => return (ErrorKind::Io, "it does not reply").into(),
            // After a silence, the connection is checked.
            None => {
                if let Err(error) = connection.send(&cmd("PING").get_packed_command()) {
                    return error;
                }
                is_asked = true;
            }
        }
    }
}

fn subscribe(target: &Target, channel: &str) -> RedisResult<Connection> {
    let mut connection = open(target, channel)?;
    match connection.ask(cmd("SUBSCRIBE").arg(channel))? {
        Value::Array(_) => Ok(connection),
        _ => Err((ErrorKind::UnexpectedReturnType, "it does not confirm a subscription").into()),
    }
}

fn publish(target: &Target, channel: &str, message: &impl Serialize) -> RedisResult<Value> {
    let text = serde_json::to_string(message).unwrap_or_default();
    open(target, channel)?.ask(cmd("PUBLISH").arg(channel).arg(text))
}

/// In a cluster, subscribers and publishers of a channel meet at the owner of its slot: a server counts its own
/// subscribers.
fn open(target: &Target, channel: &str) -> RedisResult<Connection> {
    if target.is_cluster() {
        return ClusterClient::open_owner(target, channel);
    }
    connect::open(target, &connect::find(target)?, ProtocolVersion::RESP2)
}

/// The content of a message of a channel.
fn payload(reply: &Value) -> Option<&[u8]> {
    match reply {
        Value::Array(items) => match items.as_slice() {
            [Value::BulkString(kind), _, Value::BulkString(text)] if kind == b"message" => Some(text),
            _ => None,
        },
        _ => None,
    }
}
