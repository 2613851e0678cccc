//! A connection for questions of this node's own, opened when it is needed.

use super::connect;
use super::connection::Connection;
use super::target::{Location, Target};
use redis::{Cmd, ErrorKind, FromRedisValue, ProtocolVersion, RedisError, RedisResult, Value, from_redis_value};

/// What the reply to one question may cost of memory, in bytes.
const MAX_REPLY: usize = 64 << 20;

/// The way to a server.
pub(super) struct Link {
    target: Target,
    connection: Option<Connection>,
}

impl Link {
    pub(super) fn new(target: &Target) -> Self {
        Self { target: target.clone(), connection: None }
    }

    /// A key behind the prefix.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.target.prefix)
    }

    /// Fails where sentinels have made another server the master.
    pub(super) fn check_master(&mut self) -> RedisResult<()> {
        match &mut self.connection {
            Some(connection) if matches!(self.target.place, Location::Sentinel { .. }) => {
                connect::check_master(connection).inspect_err(|_| self.connection = None)
            }
            _ => Ok(()),
        }
    }

    /// Asks what may be asked twice: a connection that was idle may have been closed.
    pub(super) fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        let was_open = self.connection.is_some();
        match self.ask_once(command) {
            Err(error) if was_open && error.is_io_error() && !error.is_timeout() => self.ask_once(command),
            result => result,
        }
    }

    /// Asks once. After a failure of the connection the server may have done what it was told.
    pub(super) fn ask_once(&mut self, command: &Cmd) -> RedisResult<Value> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let server = connect::find(&self.target)?;
                self.connection.insert(connect::open(&self.target, &server, ProtocolVersion::RESP2)?)
            }
        };
        let reply = connection
            .ask_all(&command.get_packed_command(), 1, MAX_REPLY)
            .and_then(|mut replies| replies.pop().ok_or_else(|| odd("there is no reply"))?.extract_error());
        // One that refuses may be no master any more.
        reply.inspect_err(|_| self.connection = None)
    }
}

/// A reply that means nothing.
pub(super) fn odd(problem: &'static str) -> RedisError {
    (ErrorKind::UnexpectedReturnType, problem).into()
}

pub(super) fn parsed<T: FromRedisValue>(value: Value) -> RedisResult<T> {
    Ok(from_redis_value(value)?)
}

/// The entries of a stream: their identities, and the value of their only field.
pub(super) fn entries(reply: Value) -> RedisResult<Vec<(String, String)>> {
    let entries: Vec<(String, Vec<String>)> = parsed(reply)?;
    let entry = |(id, fields): (String, Vec<String>)| {
        fields.into_iter().nth(1).map(|value| (id, value)).ok_or_else(|| odd("an entry of a stream has no field"))
    };
    entries.into_iter().map(entry).collect()
}

/// The entries in the reply to `XREAD` of one stream; none where nothing came in time.
pub(super) fn read_entries(reply: Value) -> RedisResult<Vec<(String, String)>> {
    match reply {
        Value::Nil => Ok(Vec::new()),
        Value::Array(streams) => match streams.into_iter().next() {
            Some(Value::Array(stream)) => entries(stream.into_iter().nth(1).unwrap_or(Value::Nil)),
            _ => Err(odd("a stream has no name")),
        },
        _ => Err(odd("the reply to XREAD is no list")),
    }
}
