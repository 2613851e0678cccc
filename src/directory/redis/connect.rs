//! Connections to a Redis: found, opened within a time, and asked without ever waiting for longer than that.

use super::connection::{Connection, Login, MAX_REPLY, PATIENCE};
use super::target::{Location, Target};
use redis::{
    Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    RedisError, RedisResult, Value, cmd, io::tcp::TcpSettings,
};

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
        Location::Tcp { host, port, tls: false } => return Ok(Server(ConnectionAddr::Tcp(host.clone(), *port))),
        Location::Tcp { host, port, tls: true } => {
            let (host, port) = (host.clone(), *port);
            return Ok(Server(ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }));
        }
        Location::Unix(path) => return Ok(Server(ConnectionAddr::Unix(path.clone()))),
        Location::Sentinel { sentinels, service } => (sentinels, service),
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
    let mut connection = Connection::open(sentinel, &Login::default(), ProtocolVersion::RESP2)?;
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
    let login = Login { user: target.user.as_deref(), password: target.password.as_deref(), database: target.database };
    let mut connection = Connection::open(&server.0, &login, protocol)?;
    if matches!(target.place, Location::Sentinel { .. }) {
        check_master(&mut connection)?;
    }
    Ok(connection)
}

/// Opens a connection of a tool's own, which has all time it needs for a reply as long as bytes come in.
pub(super) fn open_for_tool(target: &Target) -> RedisResult<redis::Connection> {
    let server = find(target)?;
    // Whoever installed one before has chosen.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // What a sentinel names is seen to be a master first.
    drop(open(target, &server, ProtocolVersion::RESP2)?);
    let mut settings = RedisConnectionInfo::default().set_db(i64::from(target.database)).set_skip_set_lib_name();
    if let Some(user) = &target.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &target.password {
        settings = settings.set_password(password);
    }
    let info: ConnectionInfo = server.0.into_connection_info()?;
    let info = info.set_redis_settings(settings.set_protocol(ProtocolVersion::RESP2));
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let connection = Client::open(info)?.get_connection_with_timeout(PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    Ok(connection)
}

/// A sentinel may name a master that is none any more.
pub(super) fn check_master(connection: &mut Connection) -> RedisResult<()> {
    let role = ask(connection, &cmd("ROLE"))?;
    let is_master =
        matches!(&role, Value::Array(items) if items.first() == Some(&Value::BulkString(b"master".to_vec())));
    if is_master { Ok(()) } else { Err((ErrorKind::Io, "the server is no master").into()) }
}

/// Asks one thing. An error of the server is an error.
pub(super) fn ask(connection: &mut Connection, command: &Cmd) -> RedisResult<Value> {
    connection.ask(command)
}

/// Sends commands and reads so many replies, errors of the server among them. Ends with the first failure of the
/// connection.
pub(super) fn ask_all(connection: &mut Connection, packed: &[u8], count: usize) -> RedisResult<Vec<Value>> {
    connection.ask_all(packed, count, MAX_REPLY)
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
