//! Connections to a Redis: discovery, opening with a time limit, and queries with a time limit.

use super::address::Address;
use super::connection::{Connection, Login, MAX_REPLY, PATIENCE};
use super::target::{Location, SentinelLogin, Target};
use crate::base::secret::Secret;
use redis::{
    Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    RedisError, RedisResult, Value, cmd, io::tcp::TcpSettings,
};
use std::fmt;

/// What is connected to.
#[derive(Clone, Debug)]
pub(super) enum Server {
    /// One server.
    Single(ConnectionAddr),
    /// All watched servers of a cluster.
    Cluster,
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Single(ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. })
                if host.contains(':') =>
            {
                write!(f, "[{host}]:{port}")
            }
            Self::Single(address) => address.fmt(f),
            Self::Cluster => f.write_str("the cluster"),
        }
    }
}

impl Server {
    /// The address of a single server.
    fn address(&self) -> RedisResult<&ConnectionAddr> {
        match self {
            Self::Single(address) => Ok(address),
            Self::Cluster => Err((ErrorKind::InvalidClientConfig, "a cluster has no single server").into()),
        }
    }
}

#[cfg(test)]
impl Server {
    /// A server that is never connected to.
    pub(super) fn of_a_test() -> Self {
        Self::Single(ConnectionAddr::Tcp("redis.test".to_owned(), 6379))
    }
}

/// The message about a replica without its master.
pub(super) const LOST_MASTER: &str = "it is a replica that has lost its master, so what it says may be outdated";

/// The process behind a connection, and its data. A part that may not be queried is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// It changes with each restart.
    pub(super) run_id: String,
    /// The histories of the data: the present one, and the one before a fail-over or a restart that kept the data.
    pub(super) histories: Vec<String>,
    /// The position of the data in its present history, in bytes of replication.
    pub(super) offset: Option<u64>,
    /// The position at which it left the earlier history.
    branch: Option<u64>,
    is_replica: bool,
    /// It is a replica without a connection to its master.
    pub(super) has_lost_master: bool,
}

/// The relation between the data of a server and the known data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Continuity {
    /// It continues the known data.
    Same,
    /// It has the same history, and lacks the last writes.
    Behind {
        /// Missing bytes of replication.
        by: u64,
    },
    /// It is other data, or the relation is unknown.
    Other,
}

/// What follows from it, behind the line of a log that names the server; nothing for the same data.
impl fmt::Display for Continuity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => Ok(()),
            Self::Behind { by } => {
                write!(f, "; its data lacks the last {by} bytes of writes, so no route is dropped until it is complete")
            }
            Self::Other => f.write_str("; its data is not what it was, so no route is dropped until it is complete"),
        }
    }
}

impl Identity {
    /// The relation of this data to the known data `other`.
    pub(super) fn continues(&self, other: &Self) -> Continuity {
        if !self.run_id.is_empty() && self.run_id == other.run_id && self.has_renamed_history(other) {
            return Continuity::Same;
        }
        let history = other.histories.first();
        let Some(place) = history.and_then(|known| self.histories.iter().position(|own| own == known)) else {
            return Continuity::Other;
        };
        let reached = if place == 0 { self.offset } else { self.branch };
        match (reached, other.offset) {
            (Some(reached), Some(known)) if reached < known => Continuity::Behind { by: known - reached },
            _ => Continuity::Same,
        }
    }

    /// Whether this data, of the same process, is what `before` was or what became of it. Without permission to query it,
    /// it counts as that.
    pub(super) fn has_history_of(&self, before: &Self) -> bool {
        self.histories.is_empty()
            || before.histories.first().is_none_or(|history| self.histories.contains(history))
            || self.has_renamed_history(before)
    }

    /// A master, of the same process, begins a history with the same data when its first replica connects, and when its
    /// last one has been away for long (`repl-backlog-ttl`). A replica that was promoted has an earlier history.
    fn has_renamed_history(&self, before: &Self) -> bool {
        !self.is_replica && !before.is_replica && self.histories.len() == 1 && !before.histories.is_empty()
    }

    /// The histories and the position, in the form of a snapshot.
    pub(super) fn to_lines(&self) -> Vec<String> {
        let offset = self.offset.map(|offset| format!("{OFFSET}{offset}"));
        self.histories.iter().cloned().chain(offset).collect()
    }

    /// The reverse of [`Identity::to_lines`]; `None` for no lines.
    pub(super) fn from_lines(lines: Vec<String>) -> Option<Self> {
        let offset = lines.iter().find_map(|line| line.strip_prefix(OFFSET)?.parse().ok());
        let histories: Vec<_> = lines.into_iter().filter(|line| !line.starts_with(OFFSET)).collect();
        (!histories.is_empty()).then(|| Self { histories, offset, ..Self::default() })
    }

    /// The identity in a reply to `INFO`.
    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        let mut identity = Self::default();
        identity.add(text);
        identity
    }

    /// Adds the fields of a reply to `INFO`.
    fn add(&mut self, text: &str) {
        for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
            match key {
                "run_id" => self.run_id = value.to_owned(),
                "role" => self.is_replica = value == "slave",
                "master_link_status" => self.has_lost_master = self.is_replica && value == "down",
                "master_replid" => self.histories.insert(0, value.to_owned()),
                "master_replid2" if value.contains(|char| char != '0') => self.histories.push(value.to_owned()),
                "slave_repl_offset" => self.offset = value.parse().ok(),
                "master_repl_offset" if !self.is_replica => self.offset = value.parse().ok(),
                // The value is the first byte that is not shared.
                "second_repl_offset" => self.branch = value.parse::<u64>().ok().and_then(|byte| byte.checked_sub(1)),
                _ => {}
            }
        }
    }
}

/// Prefix of the offset in the first line of a snapshot.
const OFFSET: &str = "offset=";

/// The replication role of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It takes writes.
    Master {
        /// The position of its data.
        offset: u64,
    },
    /// It replicates a master.
    Replica {
        /// Whether it is connected to the master, with all data.
        is_linked: bool,
        /// The position of its data, if it has any.
        offset: Option<u64>,
    },
    /// It is unknown.
    Unknown,
}

impl Role {
    /// Parses the reply to `ROLE`.
    pub(super) fn read(reply: &Value) -> Self {
        let Value::Array(items) = reply else { return Self::Unknown };
        let offset = |item: &Value| match item {
            Value::Int(offset) => u64::try_from(*offset).ok(),
            _ => None,
        };
        match items.as_slice() {
            [Value::BulkString(kind), own, ..] if kind == b"master" => {
                offset(own).map_or(Self::Unknown, |offset| Self::Master { offset })
            }
            [Value::BulkString(kind), _, _, Value::BulkString(state), own, ..] if kind == b"slave" => {
                Self::Replica { is_linked: state == b"connected", offset: offset(own) }
            }
            _ => Self::Unknown,
        }
    }

    /// The position of the data.
    pub(super) fn offset(self) -> Option<u64> {
        match self {
            Self::Master { offset } => Some(offset),
            Self::Replica { offset, .. } => offset,
            Self::Unknown => None,
        }
    }
}

/// Queries the role. The command may be forbidden.
pub(super) fn role(connection: &mut Connection) -> RedisResult<Role> {
    match ask_all(connection, &cmd("ROLE").get_packed_command(), 1)?.first() {
        Some(Value::ServerError(error)) if is_passing(error.code()) => Err(error.clone().into()),
        Some(reply) => Ok(Role::read(reply)),
        None => Ok(Role::Unknown),
    }
}

/// Finds the server: for a set with sentinels, the master that most of them name. A sentinel that is cut off from the
/// others may name a former master; if as many name another one, chance decides, again at each attempt.
pub(super) fn find(target: &Target) -> RedisResult<Server> {
    let (sentinels, service, login) = match &target.place {
        Location::Tcp { host, port, tls: false } => {
            return Ok(Server::Single(ConnectionAddr::Tcp(host.clone(), *port)));
        }
        Location::Tcp { host, port, tls: true } => {
            let (host, port) = (host.clone(), *port);
            return Ok(Server::Single(ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }));
        }
        Location::Unix(path) => return Ok(Server::Single(ConnectionAddr::Unix(path.clone()))),
        Location::Cluster { .. } => {
            return Err((ErrorKind::InvalidClientConfig, "a cluster has no single server").into());
        }
        Location::Sentinel { sentinels, service, login } => (sentinels, service, login),
    };
    let mut last = RedisError::from((ErrorKind::InvalidClientConfig, "no sentinel is named"));
    let mut named: Vec<(ConnectionAddr, usize)> = Vec::new();
    for (host, port) in sentinels {
        match ask_sentinel(&ConnectionAddr::Tcp(host.clone(), *port), service, login) {
            Ok(address) => {
                let votes = match named.iter_mut().find(|(known, _)| *known == address) {
                    Some((_, votes)) => {
                        *votes += 1;
                        *votes
                    }
                    None => {
                        named.push((address.clone(), 1));
                        1
                    }
                };
                if 2 * votes > sentinels.len() {
                    return Ok(Server::Single(address));
                }
            }
            Err(error) => {
                log::debug!("asking the sentinel {host}:{port} for {service}: {error}");
                last = error;
            }
        }
    }
    let most = named.iter().map(|(_, votes)| *votes).max().unwrap_or_default();
    named.retain(|(_, votes)| *votes == most);
    if named.is_empty() { Err(last) } else { Ok(Server::Single(named.swap_remove(fastrand::usize(..named.len())).0)) }
}

fn ask_sentinel(sentinel: &ConnectionAddr, service: &str, login: &SentinelLogin) -> RedisResult<ConnectionAddr> {
    let password = login.password.as_ref().map(Secret::reveal);
    let login = Login { user: login.user.as_deref(), password, database: 0 };
    let mut connection = Connection::open(sentinel, &login, ProtocolVersion::RESP2)?;
    let (host, port): (String, u16) = ask(&mut connection, cmd("SENTINEL").arg("get-master-addr-by-name").arg(service))
        .and_then(|value| {
            if value == Value::Nil {
                return Err((ErrorKind::InvalidClientConfig, "the sentinel does not know this service").into());
            }
            Ok(redis::from_redis_value(value)?)
        })?;
    Ok(ConnectionAddr::Tcp(host, port))
}

/// Opens a connection to the server, and selects user and database.
pub(super) fn open(target: &Target, server: &Server, protocol: ProtocolVersion) -> RedisResult<Connection> {
    let login = Login { user: target.user.as_deref(), password: target.password.as_deref(), database: target.database };
    let mut connection = Connection::open(server.address()?, &login, protocol)?;
    if matches!(target.place, Location::Sentinel { .. }) {
        check_master(&mut connection)?;
    }
    Ok(connection)
}

/// Opens a connection to a server of a cluster, or to any other server of this target.
pub(super) fn open_at(target: &Target, address: &Address, protocol: ProtocolVersion) -> RedisResult<Connection> {
    let login = Login { user: target.user.as_deref(), password: target.password.as_deref(), database: 0 };
    Connection::open(&place_of(target, address), &login, protocol)
}

fn place_of(target: &Target, address: &Address) -> ConnectionAddr {
    let (host, port) = (address.host.to_string(), address.port);
    if target.is_encrypted() {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    }
}

/// Opens a connection for a tool, which waits for a reply as long as bytes arrive.
pub(super) fn open_for_tool(target: &Target) -> RedisResult<redis::Connection> {
    let server = find(target)?;
    // A server named by a sentinel is first verified to be a master.
    drop(open(target, &server, ProtocolVersion::RESP2)?);
    open_tool_at(target, server.address()?.clone())
}

/// The same for a server of a cluster.
pub(super) fn open_server_for_tool(target: &Target, address: &Address) -> RedisResult<redis::Connection> {
    open_tool_at(target, place_of(target, address))
}

fn open_tool_at(target: &Target, place: ConnectionAddr) -> RedisResult<redis::Connection> {
    // An installed provider stays.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut settings = RedisConnectionInfo::default().set_db(i64::from(target.database)).set_skip_set_lib_name();
    if let Some(user) = &target.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &target.password {
        settings = settings.set_password(password);
    }
    let info: ConnectionInfo = place.into_connection_info()?;
    let info = info.set_redis_settings(settings.set_protocol(ProtocolVersion::RESP2));
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let connection = Client::open(info)?.get_connection_with_timeout(PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    Ok(connection)
}

/// Fails if the server is not a master: a sentinel may name a former one.
pub(super) fn check_master(connection: &mut Connection) -> RedisResult<()> {
    let role = ask(connection, &cmd("ROLE"))?;
    let is_master =
        matches!(&role, Value::Array(items) if items.first() == Some(&Value::BulkString(b"master".to_vec())));
    if is_master { Ok(()) } else { Err((ErrorKind::Io, "the server is no master").into()) }
}

/// Sends one command. An error of the server is an error.
pub(super) fn ask(connection: &mut Connection, command: &Cmd) -> RedisResult<Value> {
    connection.ask(command)
}

/// Sends commands and reads `count` replies, errors of the server among them. Ends at the first failure of the
/// connection.
pub(super) fn ask_all(connection: &mut Connection, packed: &[u8], count: usize) -> RedisResult<Vec<Value>> {
    connection.ask_all(packed, count, MAX_REPLY)
}

/// The identity of the server.
pub(super) fn identify(connection: &mut Connection) -> RedisResult<Identity> {
    let packed = [cmd("INFO").arg("server").get_packed_command(), cmd("INFO").arg("replication").get_packed_command()];
    let replies = ask_all(connection, &packed.concat(), 2)?;
    let mut identity = Identity::default();
    for reply in replies {
        let text: String = match reply {
            Value::ServerError(error) if is_passing(error.code()) => return Err(error.into()),
            // The command may be forbidden.
            Value::ServerError(_) => continue,
            reply => redis::from_redis_value(reply)?,
        };
        identity.add(&text);
    }
    Ok(identity)
}

/// Whether an error with this code is temporary, rather than a fault of the command.
pub(super) fn is_passing(code: &str) -> bool {
    matches!(code, "LOADING" | "MASTERDOWN" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN" | "NOAUTH" | "OOM" | "MISCONF")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(text: &str) -> Identity {
        Identity::of(&text.replace(' ', "\r\n"))
    }

    #[test]
    fn an_address_is_shown_as_it_is_written() {
        for (host, expected) in [("redis.test", "redis.test:6379"), ("::1", "[::1]:6379")] {
            assert_eq!(Server::Single(ConnectionAddr::Tcp(host.to_owned(), 6379)).to_string(), expected);
        }
    }

    #[test]
    fn data_goes_on_or_lacks_the_last_writes_or_is_other_data() {
        let zeros = "0".repeat(40);
        let before =
            identity("role:master master_replid:aa master_replid2:00 master_repl_offset:100 second_repl_offset:-1");
        assert_eq!(before.histories, ["aa"]);
        for (text, expected) in [
            ("role:master master_replid:aa master_repl_offset:100 second_repl_offset:-1", Continuity::Same),
            ("role:master master_replid:aa master_repl_offset:90 second_repl_offset:-1", Continuity::Behind { by: 10 }),
            (
                "role:master master_replid:bb master_replid2:aa master_repl_offset:500 second_repl_offset:101",
                Continuity::Same,
            ),
            (
                "role:master master_replid:bb master_replid2:aa master_repl_offset:500 second_repl_offset:81",
                Continuity::Behind { by: 20 },
            ),
            (
                "role:slave master_link_status:up slave_repl_offset:99 master_replid:aa master_repl_offset:7",
                Continuity::Behind { by: 1 },
            ),
            (
                "role:master master_replid:bb master_replid2:cc master_repl_offset:500 second_repl_offset:101",
                Continuity::Other,
            ),
            ("", Continuity::Other),
        ] {
            assert_eq!(identity(text).continues(&before), expected, "{text}");
        }
        // Parts that may not be queried cannot be compared.
        assert_eq!(identity("master_replid:aa").continues(&before), Continuity::Same);
        assert_eq!(before.continues(&identity(&format!("master_replid2:{zeros}"))), Continuity::Other);
        let kept = Identity::from_lines(before.to_lines()).expect("an identity");
        assert_eq!((kept.histories.as_slice(), kept.offset), (before.histories.as_slice(), Some(100)));
        assert_eq!(Identity::from_lines(vec!["offset=1".to_owned()]), None);
        let renamed = |id: &str| identity(&format!("run_id:{id} role:master master_replid:bb master_repl_offset:100"));
        let of_a = identity("run_id:a role:master master_replid:aa master_repl_offset:100");
        assert_eq!(renamed("a").continues(&of_a), Continuity::Same);
        assert_eq!(renamed("b").continues(&of_a), Continuity::Other);
        for (text, expected) in [
            ("master_replid:aa master_repl_offset:1", true),
            ("master_replid:bb master_replid2:aa second_repl_offset:101", true),
            ("role:master master_replid:bb master_replid2:cc second_repl_offset:101", false),
            ("role:slave master_replid:bb", false),
            // Its first replica has come.
            ("role:master master_replid:bb master_replid2:0000 second_repl_offset:-1", true),
            ("role:master", true),
        ] {
            assert_eq!(identity(text).has_history_of(&before), expected, "{text}");
            assert!(identity(text).has_history_of(&identity("role:master")), "{text}");
        }
        assert!(identity("role:slave master_link_status:down").has_lost_master);
        assert!(!identity("role:slave master_link_status:up").has_lost_master);
    }

    #[test]
    fn a_role_is_read_and_whatever_is_none_is_unknown() {
        let text = |text: &str| Value::BulkString(text.into());
        let replica = |state: &str, offset| {
            Value::Array(vec![text("slave"), text("10.0.0.1"), Value::Int(6379), text(state), Value::Int(offset)])
        };
        let master = Value::Array(vec![text("master"), Value::Int(7), Value::Array(vec![])]);
        for (reply, expected, offset) in [
            (master, Role::Master { offset: 7 }, Some(7)),
            (replica("connected", 9), Role::Replica { is_linked: true, offset: Some(9) }, Some(9)),
            (replica("connect", -1), Role::Replica { is_linked: false, offset: None }, None),
            (Value::Array(vec![text("sentinel"), Value::Array(vec![])]), Role::Unknown, None),
            (Value::Okay, Role::Unknown, None),
        ] {
            let role = Role::read(&reply);
            assert_eq!((role, role.offset()), (expected, offset));
        }
    }
}
