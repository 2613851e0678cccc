//! The nodes that serve from one Redis, and receipts: the confirmation that all nodes serve its present state. Keys,
//! behind the prefix:
//!
//! | key | type | content |
//! |---|---|---|
//! | `node:<id>` | string | A node as JSON; expires six seconds after its last heartbeat |
//! | `nodes` | set | The ids |
//! | `nodes:since` | string | When the first node registered in this data, in seconds since 1970 by the clock of Redis |
//! | `receipts` | stream | The hosts of requested receipts; the last 1,000 or so |
//! | `receipt:<entry>` | list | The ids of the nodes that serve the state at the time of the entry |

use super::link::{Link, entries, odd, parsed, read_entries};
use super::target::Target;
use crate::base::clock::Clock;
use redis::{RedisResult, cmd};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Time for which a node counts as alive after its last heartbeat.
const LIFE: Duration = Duration::from_secs(6);
/// Seconds that all nodes take to register in a Redis that has lost its data.
const SETTLING: u64 = 3;
/// The least number of receipts that are kept.
const MAX_RECEIPTS: usize = 1000;
/// Seconds for which the acknowledgements of a receipt are kept.
const ACK_LIFE: u64 = 120;
/// Milliseconds for which Redis waits for the next receipt, or for the next acknowledgement. The limit of a reply is
/// longer.
const WAIT_MS: usize = 500;
const ACK_WAIT: f64 = 0.25;

/// A node's description of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The id of the process.
    pub id: String,
    /// The name of its machine.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// The first address for clients.
    pub address: String,
    /// Requests in flight to backends.
    pub load: u64,
    /// The time of its start, in seconds since 1970.
    pub epoch: u64,
}

impl Node {
    /// The node as JSON.
    pub fn json(&self) -> Value {
        let Self { id, name, version, address, load, epoch } = self;
        json!({"id": id, "name": name, "version": version, "address": address, "load": load, "epoch": epoch})
    }

    fn read(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        Some(Self {
            id: text("id")?,
            name: text("name")?,
            version: text("version")?,
            address: text("address")?,
            load: value["load"].as_u64()?,
            epoch: value["epoch"].as_u64()?,
        })
    }
}

/// A requested receipt: its entry and its host.
#[derive(Clone, Debug)]
pub(in crate::directory) struct Receipt {
    pub(in crate::directory) entry: String,
    pub(in crate::directory) host: String,
}

/// The fleet, accessed by its own connection.
pub(in crate::directory) struct Fleet(Link);

impl Fleet {
    pub(in crate::directory) fn new(target: &Target) -> Self {
        Self(Link::new(target))
    }

    /// Publishes a node, for [`LIFE`].
    pub(in crate::directory) fn register(&mut self, node: &Node) -> RedisResult<()> {
        let (key, life) = (self.0.key(&format!("node:{}", node.id)), LIFE.as_millis() as u64);
        self.0.ask(cmd("SET").arg(key).arg(node.json().to_string()).arg("PX").arg(life))?;
        let is_new: bool = parsed(self.0.ask(cmd("SADD").arg(self.0.key("nodes")).arg(&node.id))?)?;
        if is_new {
            let (key, now) = (self.0.key("nodes:since"), self.time()?);
            self.0.ask(cmd("SET").arg(key).arg(now).arg("NX"))?;
        }
        Ok(())
    }

    /// The time of Redis's clock, in seconds since 1970.
    fn time(&mut self) -> RedisResult<u64> {
        let (seconds, _): (u64, u64) = parsed(self.0.ask(&cmd("TIME"))?)?;
        Ok(seconds)
    }

    /// Whether all living nodes have had the time to register.
    fn is_settled(&mut self) -> RedisResult<bool> {
        let since: Option<u64> = parsed(self.0.ask(cmd("GET").arg(self.0.key("nodes:since")))?)?;
        let now = self.time()?;
        Ok(since.is_some_and(|since| now > since + SETTLING))
    }

    /// Removes a node that has ended.
    pub(in crate::directory) fn leave(&mut self, id: &str) -> RedisResult<()> {
        self.0.ask(cmd("SREM").arg(self.0.key("nodes")).arg(id))?;
        self.0.ask(cmd("DEL").arg(self.0.key(&format!("node:{id}")))).map(drop)
    }

    /// The living nodes.
    pub(in crate::directory) fn nodes(&mut self) -> RedisResult<Vec<Node>> {
        let mut ids: Vec<String> = parsed(self.0.ask(cmd("SMEMBERS").arg(self.0.key("nodes")))?)?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        ids.sort_unstable();
        let keys: Vec<String> = ids.iter().map(|id| self.0.key(&format!("node:{id}"))).collect();
        let texts = self.0.get_all(&keys)?;
        let (mut nodes, mut gone) = (Vec::new(), Vec::new());
        for (id, text) in ids.iter().zip(texts) {
            match text {
                Some(text) => nodes.extend(Node::read(&text)),
                None => gone.push(id),
            }
        }
        if !gone.is_empty() {
            self.0.ask(cmd("SREM").arg(self.0.key("nodes")).arg(gone))?;
        }
        nodes.sort_by(|one, other| {
            (&one.name, &one.address, one.epoch).cmp(&(&other.name, &other.address, other.epoch))
        });
        Ok(nodes)
    }

    /// The newest entry of the receipts.
    pub(in crate::directory) fn newest(&mut self) -> RedisResult<String> {
        let reply = self.0.ask(cmd("XREVRANGE").arg(self.0.key("receipts")).arg("+").arg("-").arg("COUNT").arg(1))?;
        Ok(entries(reply)?.pop().map_or_else(|| "0-0".to_owned(), |(entry, ..)| entry))
    }

    /// Waits for receipts behind this entry. It may return none after a while.
    pub(in crate::directory) fn wait(&mut self, seen: &str) -> RedisResult<Vec<Receipt>> {
        self.0.check_master()?;
        let key = self.0.key("receipts");
        let reply = self.0.ask_once(cmd("XREAD").arg("BLOCK").arg(WAIT_MS).arg("STREAMS").arg(key).arg(seen))?;
        Ok(read_entries(reply)?.into_iter().map(|(entry, _, host)| Receipt { entry, host }).collect())
    }

    /// Acknowledges a receipt for a node.
    pub(in crate::directory) fn acknowledge(&mut self, receipt: &Receipt, id: &str) -> RedisResult<()> {
        let key = self.0.key(&format!("receipt:{}", receipt.entry));
        self.0.ask(cmd("RPUSH").arg(&key).arg(id))?;
        self.0.ask(cmd("EXPIRE").arg(&key).arg(ACK_LIFE)).map(drop)
    }
}

/// The result of a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The nodes that serve the state of Redis at the time of the request.
    pub nodes: Vec<Node>,
    /// The nodes that have not acknowledged in time.
    pub missing: Vec<Node>,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} nodes serve what stands in Redis", self.nodes.len())?;
        for node in &self.missing {
            write!(f, "; no acknowledgement from {} at {} ({})", node.name, node.address, node.id)?;
        }
        Ok(())
    }
}

/// The living nodes.
pub fn nodes(target: &Target) -> RedisResult<Vec<Node>> {
    Fleet::new(target).nodes()
}

/// Waits until every core of every living node serves the present state of this host in Redis, or until `patience` is
/// over.
pub fn wait_until_served(target: &Target, host: &str, patience: Duration) -> RedisResult<Served> {
    let (mut fleet, clock) = (Fleet::new(target), Clock::new());
    let deadline = clock.now() + patience;
    while !fleet.is_settled()? {
        if clock.now() >= deadline {
            return Err(odd("no node has registered there for a few seconds: the nodes are not known"));
        }
        // It never fails, since it is a timer.
        let _ = crossbeam_channel::after(Duration::from_secs_f64(ACK_WAIT)).recv();
    }
    // The nodes are read before the entry is made: a node that registers later reads everything behind it.
    let nodes = fleet.nodes()?;
    let mut missing: BTreeMap<String, Node> = nodes.into_iter().map(|node| (node.id.clone(), node)).collect();
    let link = &mut fleet.0;
    let key = link.key("receipts");
    let entry = cmd("XADD").arg(key).arg("MAXLEN").arg("~").arg(MAX_RECEIPTS).arg("*").arg("host").arg(host).clone();
    let entry: String = parsed(link.ask_once(&entry)?)?;
    let key = link.key(&format!("receipt:{entry}"));
    let mut served = Vec::new();
    while !missing.is_empty() && clock.now() < deadline {
        let acknowledged: Option<(String, String)> = parsed(fleet.0.ask_once(cmd("BLPOP").arg(&key).arg(ACK_WAIT))?)?;
        match acknowledged {
            Some((_, id)) => served.extend(missing.remove(&id)),
            None => {
                // A node that has ended serves nothing.
                let living = fleet.nodes()?;
                missing.retain(|id, _| living.iter().any(|node| node.id == *id));
            }
        }
    }
    Ok(Served { nodes: served, missing: missing.into_values().collect() })
}
