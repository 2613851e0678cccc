//! A connection for tools: to one server, or to all servers of a cluster.

use super::connect;
use super::shards::client::ClusterClient;
use super::target::Target;
use redis::{Connection, ConnectionLike, RedisResult, Value, cmd};

/// Memory limit of the replies to the commands of a tool that are sent at once, in bytes.
const MAX_REPLY: usize = 256 << 20;

/// A connection for commands of the `redis` crate. In a cluster each command goes to the owner of its key, so a
/// transaction may only have keys of one slot.
pub struct ToolConnection(Kind);

enum Kind {
    Single(Box<Connection>),
    Cluster { client: Box<ClusterClient>, target: Box<Target> },
}

impl ToolConnection {
    pub(super) fn open(target: &Target) -> RedisResult<Self> {
        if !target.is_cluster() {
            return Ok(Self(Kind::Single(Box::new(connect::open_for_tool(target)?))));
        }
        let client = Box::new(ClusterClient::open(target, false)?);
        Ok(Self(Kind::Cluster { client, target: Box::new(target.clone()) }))
    }

    /// Whether the keys are those of a cluster: only those of one slot can be written at once.
    pub fn is_cluster(&self) -> bool {
        matches!(self.0, Kind::Cluster { .. })
    }

    /// Passes the names of all keys with this beginning to `take`, in portions. While slots of a cluster move, a key may
    /// be passed twice or not at all. Fails if a server that has keys does not reply.
    pub fn scan(&mut self, start: &str, mut take: impl FnMut(Vec<Vec<u8>>)) -> RedisResult<()> {
        match &mut self.0 {
            Kind::Single(connection) => scan(connection, start, &mut take),
            Kind::Cluster { client, target } => client
                .masters()
                .iter()
                .try_for_each(|address| scan(&mut connect::open_server_for_tool(target, address)?, start, &mut take)),
        }
    }
}

/// Number of keys that a server examines in one round trip.
const SCAN_COUNT: usize = 1000;

fn scan(connection: &mut Connection, start: &str, take: &mut impl FnMut(Vec<Vec<u8>>)) -> RedisResult<()> {
    let pattern = format!("{}*", super::watcher::escape(start));
    let mut cursor = 0_u64;
    loop {
        let mut command = cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
        let (next, keys): (u64, Vec<Vec<u8>>) = command.query(connection)?;
        take(keys);
        cursor = next;
        if cursor == 0 {
            return Ok(());
        }
    }
}

impl ConnectionLike for ToolConnection {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        match &mut self.0 {
            Kind::Single(connection) => connection.req_packed_command(command),
            Kind::Cluster { client, .. } => {
                let replies = client.ask_all(command, 1, MAX_REPLY)?;
                replies.into_iter().next().unwrap_or_default().extract_error()
            }
        }
    }

    fn req_packed_commands(&mut self, commands: &[u8], offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        match &mut self.0 {
            Kind::Single(connection) => connection.req_packed_commands(commands, offset, count),
            Kind::Cluster { client, .. } => {
                let replies = client.ask_all(commands, offset + count, MAX_REPLY)?;
                Ok(replies.into_iter().skip(offset).collect())
            }
        }
    }

    fn get_db(&self) -> i64 {
        match &self.0 {
            Kind::Single(connection) => connection.get_db(),
            Kind::Cluster { .. } => 0,
        }
    }

    fn check_connection(&mut self) -> bool {
        match &mut self.0 {
            Kind::Single(connection) => connection.check_connection(),
            Kind::Cluster { client, .. } => client.ask_all(&cmd("PING").get_packed_command(), 1, MAX_REPLY).is_ok(),
        }
    }

    fn is_open(&self) -> bool {
        match &self.0 {
            Kind::Single(connection) => connection.is_open(),
            Kind::Cluster { client, .. } => client.is_open(),
        }
    }
}
