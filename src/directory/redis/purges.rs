//! Purges of the object cache for all nodes: published by the one that is asked, performed and reported by each.
//!
//! A purge is published in the channel `<prefix>sluice:purge` as a JSON object: `query` is what the admin service was asked,
//! `reply` the channel that each node tells its result in, as an object with its `node` and either `purged` or `error`.
//! Channels of Redis keep nothing: a node that is not subscribed at that moment does not learn of the purge, and the result
//! tells how many were.

use super::connection::Connection;
use super::target::Target;
use super::{Pause, Stop, connect};
use crate::base::clock::Clock;
use crate::base::node_mark::node_mark;
use redis::{ErrorKind, ProtocolVersion, RedisResult, Value, cmd};
use serde::{Deserialize, Serialize};
use std::io;
use std::thread;
use std::time::Duration;

/// How long nodes may take to report.
const PATIENCE: Duration = Duration::from_secs(3);

/// A purge on its way.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    query: String,
    reply: String,
}

/// What a purge came to on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeResult {
    /// The mark of the node.
    pub node: String,
    /// The number of objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purged: Option<usize>,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a purge came to on all nodes.
#[derive(Debug)]
pub struct Purged {
    /// The processes that it was told to: a node has two during an upgrade.
    pub told: usize,
    /// Their results, in the order in which they came.
    pub results: Vec<NodeResult>,
}

fn channel(target: &Target) -> String {
    format!("{}sluice:purge", target.prefix)
}

/// Has this node perform the purges of all, in a thread of its own, for as long as the process lives. `purge` is given what
/// the admin service was asked, and returns the number of objects or why there are none.
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

/// Has all nodes purge what the query selects, this one among them, and waits for their results for three seconds at the
/// most.
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

/// Performs purges until the connection is of no use any more.
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
            None if is_asked => return (ErrorKind::Io, "it does not answer").into(),
            // Nothing was told for a while: is anybody there?
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
    let mut connection = open(target)?;
    match connection.ask(cmd("SUBSCRIBE").arg(channel))? {
        Value::Array(_) => Ok(connection),
        _ => Err((ErrorKind::UnexpectedReturnType, "it does not confirm a subscription").into()),
    }
}

fn publish(target: &Target, channel: &str, message: &impl Serialize) -> RedisResult<Value> {
    let text = serde_json::to_string(message).unwrap_or_default();
    open(target)?.ask(cmd("PUBLISH").arg(channel).arg(text))
}

fn open(target: &Target) -> RedisResult<Connection> {
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
