//! Connections to a Redis: opened within a time, and asked without ever waiting for longer than that.

use super::target::{Place, Target};
use redis::{
    Client, Cmd, Connection, ConnectionAddr, ConnectionInfo, ConnectionLike, ErrorKind, IntoConnectionInfo,
    ProtocolVersion, RedisConnectionInfo, RedisError, RedisResult, Value, cmd, io::tcp::TcpSettings,
};
use std::time::Duration;

/// How long opening a connection, or a reply, may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// One server, found.
#[derive(Clone, Debug)]
pub(super) struct Server(ConnectionAddr);

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Which process a connection leads to, and which data it has. What may not be asked is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// Another one after each restart.
    pub(super) run_id: String,
    /// The histories of the data: its own, and the one it was before a fail-over or a restart that kept the data.
    pub(super) histories: Vec<String>,
}

impl Identity {
    /// Whether the data goes on where `other`'s was. Not, if it cannot be told.
    pub(super) fn continues(&self, other: &Self) -> bool {
        other.histories.first().is_some_and(|history| self.histories.contains(history))
    }
}

/// Finds the server: of a set with sentinels, the master that the first one to answer names.
pub(super) fn find(target: &Target) -> RedisResult<Server> {
    let (sentinels, service) = match &target.place {
        Place::Tcp { host, port, tls: false } => return Ok(Server(ConnectionAddr::Tcp(host.clone(), *port))),
        Place::Tcp { host, port, tls: true } => {
            // Whoever installed one before has chosen.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let (host, port) = (host.clone(), *port);
            return Ok(Server(ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }));
        }
        Place::Unix(path) => return Ok(Server(ConnectionAddr::Unix(path.clone()))),
        Place::Sentinel { sentinels, service } => (sentinels, service),
    };
    let mut last = RedisError::from((ErrorKind::InvalidClientConfig, "no sentinel is named"));
    for (host, port) in sentinels {
        match ask_sentinel(&ConnectionAddr::Tcp(host.clone(), *port), service) {
            Ok(server) => return Ok(server),
            Err(error) => {
                log::debug!("asking the sentinel {host}:{port} for {service}: {error}");
                last = error;
            }
        }
    }
    Err(last)
}

fn ask_sentinel(sentinel: &ConnectionAddr, service: &str) -> RedisResult<Server> {
    let settings = RedisConnectionInfo::default().set_skip_set_lib_name();
    let mut connection = open_at(sentinel, settings, ProtocolVersion::RESP2)?;
    let (host, port): (String, u16) = ask(&mut connection, cmd("SENTINEL").arg("get-master-addr-by-name").arg(service))
        .and_then(|value| {
            if value == Value::Nil {
                return Err((ErrorKind::InvalidClientConfig, "the sentinel does not know this service").into());
            }
            Ok(redis::from_redis_value(value)?)
        })?;
    Ok(Server(ConnectionAddr::Tcp(host, port)))
}

/// Opens a connection to the server and takes on user and database.
pub(super) fn open(target: &Target, server: &Server, protocol: ProtocolVersion) -> RedisResult<Connection> {
    let mut settings = RedisConnectionInfo::default().set_db(i64::from(target.database)).set_skip_set_lib_name();
    if let Some(user) = &target.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &target.password {
        settings = settings.set_password(password);
    }
    let mut connection = open_at(&server.0, settings, protocol)?;
    if matches!(target.place, Place::Sentinel { .. }) {
        check_master(&mut connection)?;
    }
    Ok(connection)
}

/// A sentinel may name a master that is none any more.
pub(super) fn check_master(connection: &mut Connection) -> RedisResult<()> {
    let role = ask(connection, &cmd("ROLE"))?;
    let is_master =
        matches!(&role, Value::Array(items) if items.first() == Some(&Value::BulkString(b"master".to_vec())));
    if is_master { Ok(()) } else { Err((ErrorKind::Io, "the server is no master").into()) }
}

fn open_at(addr: &ConnectionAddr, settings: RedisConnectionInfo, protocol: ProtocolVersion) -> RedisResult<Connection> {
    let info: ConnectionInfo = addr.clone().into_connection_info()?;
    let info = info.set_redis_settings(settings.set_protocol(protocol));
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let connection = Client::open(info)?.get_connection_with_timeout(PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    Ok(connection)
}

/// Asks one thing. An error of the server is an error.
pub(super) fn ask(connection: &mut Connection, command: &Cmd) -> RedisResult<Value> {
    let replies = ask_all(connection, &command.get_packed_command(), 1)?;
    replies.into_iter().next().unwrap_or_default().extract_error()
}

/// Sends commands and reads so many replies, errors of the server among them. Ends with the first failure of the
/// connection: the crate's own pipelines wait for every single reply in turn, for the whole patience each.
pub(super) fn ask_all(connection: &mut Connection, packed: &[u8], count: usize) -> RedisResult<Vec<Value>> {
    connection.send_packed_command(packed)?;
    let mut replies = Vec::with_capacity(count);
    while replies.len() < count {
        match connection.recv_response()? {
            Value::Push { .. } => {}
            value => replies.push(value),
        }
    }
    Ok(replies)
}

/// Who is at the other end.
pub(super) fn identify(connection: &mut Connection) -> RedisResult<Identity> {
    let packed = [cmd("INFO").arg("server").get_packed_command(), cmd("INFO").arg("replication").get_packed_command()];
    let replies = ask_all(connection, &packed.concat(), 2)?;
    let mut identity = Identity::default();
    for reply in replies {
        let text: String = match reply {
            Value::ServerError(error) if is_passing(error.code()) => return Err(error.into()),
            // It may be forbidden.
            Value::ServerError(_) => continue,
            reply => redis::from_redis_value(reply)?,
        };
        for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
            match key {
                "run_id" => identity.run_id = value.to_owned(),
                "master_replid" => identity.histories.insert(0, value.to_owned()),
                "master_replid2" if value.contains(|char| char != '0') => identity.histories.push(value.to_owned()),
                _ => {}
            }
        }
    }
    Ok(identity)
}

/// Whether an error with this code says that the server cannot serve now, and not that a command is wrong.
pub(super) fn is_passing(code: &str) -> bool {
    matches!(code, "LOADING" | "MASTERDOWN" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN" | "NOAUTH" | "OOM" | "MISCONF")
}

/// Whether the connection is still good for the next command.
pub(super) fn is_broken(connection: &Connection) -> bool {
    !connection.is_open()
}
