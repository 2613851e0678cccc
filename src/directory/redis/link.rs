//! A connection for other queries of this node, opened on demand.

use super::channel::Channel;
use super::connect;
use super::target::{Location, Target};
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, Value, cmd, from_redis_value};

/// Memory limit of the reply to one query, in bytes.
const MAX_REPLY: usize = 64 << 20;

/// A server, and the connection to it if one is open.
pub(super) struct Link {
    target: Target,
    connection: Option<Channel>,
}

impl Link {
    pub(super) fn new(target: &Target) -> Self {
        Self { target: target.clone(), connection: None }
    }

    /// A key with the prefix.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.target.prefix)
    }

    /// Fails if sentinels have made another server the master.
    pub(super) fn check_master(&mut self) -> RedisResult<()> {
        let is_named = matches!(self.target.place, Location::Sentinel { .. });
        match self.connection.as_mut().and_then(Channel::single).filter(|_| is_named) {
            Some(connection) => connect::check_master(connection).inspect_err(|_| self.connection = None),
            None => Ok(()),
        }
    }

    /// Sends a command that may be repeated: an idle connection may have been closed.
    pub(super) fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        let was_open = self.connection.is_some();
        match self.ask_once(command) {
            Err(error) if was_open && error.is_io_error() && !error.is_timeout() => self.ask_once(command),
            result => result,
        }
    }

    /// Sends a command once. After a failure of the connection the server may have executed it.
    pub(super) fn ask_once(&mut self, command: &Cmd) -> RedisResult<Value> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(Channel::open(&self.target)?),
        };
        let reply = connection
            .ask_all(&command.get_packed_command(), 1, MAX_REPLY)
            .and_then(|mut replies| replies.pop().ok_or_else(|| odd("there is no reply"))?.extract_error());
        // A server that refuses may no longer be the master.
        reply.inspect_err(|_| self.connection = None)
    }
}

impl Link {
    /// Sends these queries at once. Each reply may be an error of the server.
    pub(super) fn ask_many(&mut self, commands: &[Cmd]) -> RedisResult<Vec<Value>> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut packed = Vec::new();
        commands.iter().for_each(|command| command.write_packed_command(&mut packed));
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(Channel::open(&self.target)?),
        };
        let replies = connection.ask_all(&packed, commands.len(), MAX_REPLY);
        replies.inspect_err(|_| self.connection = None)
    }
}

impl Link {
    /// The texts of these keys, which may be in different slots of a cluster.
    pub(super) fn get_all(&mut self, keys: &[String]) -> RedisResult<Vec<Option<String>>> {
        if !self.target.is_cluster() {
            return parsed(self.ask(cmd("MGET").arg(keys))?);
        }
        let commands: Vec<Cmd> = keys.iter().map(|key| cmd("GET").arg(key).clone()).collect();
        self.ask_many(&commands)?.into_iter().map(|reply| parsed(reply.extract_error()?)).collect()
    }
}

/// The error of an unexpected reply.
pub(super) fn odd(problem: &'static str) -> RedisError {
    (ErrorKind::UnexpectedReturnType, problem).into()
}

pub(super) fn parsed<T: FromRedisValue>(value: Value) -> RedisResult<T> {
    Ok(from_redis_value(value)?)
}

/// The entries of a stream: their ids, and the name and value of their only field.
pub(super) fn entries(reply: Value) -> RedisResult<Vec<(String, String, String)>> {
    let entries: Vec<(String, Vec<String>)> = parsed(reply)?;
    let entry = |(id, fields): (String, Vec<String>)| {
        let mut fields = fields.into_iter();
        let field = fields.next().zip(fields.next());
        field.map(|(name, value)| (id, name, value)).ok_or_else(|| odd("an entry of a stream has no field"))
    };
    entries.into_iter().map(entry).collect()
}

/// The entries in the reply to `XREAD` of one stream; none after a timeout.
pub(super) fn read_entries(reply: Value) -> RedisResult<Vec<(String, String, String)>> {
    match reply {
        Value::Nil => Ok(Vec::new()),
        Value::Array(streams) => match streams.into_iter().next() {
            Some(Value::Array(stream)) => entries(stream.into_iter().nth(1).unwrap_or(Value::Nil)),
            _ => Err(odd("a stream has no name")),
        },
        _ => Err(odd("the reply to XREAD is no list")),
    }
}
