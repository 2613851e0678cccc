//! The watching connection: writes in Redis are reported within a moment, or the connection is closed and replaced.

use super::connect::{self, Identity, Role, Server};
use super::connection::Connection;
use super::reports;
use super::sources::Sources;
use super::target::{Location, Target};
use super::{Event, HEALTH_START, Pause, Stop};
use crossbeam_channel::Sender;
use redis::{ProtocolVersion, PushKind, RedisError, RedisResult, Value, cmd};
use std::cell::Cell;
use std::fmt;

/// How changes are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InvalidationMode {
    /// Redis reports every key with one of the prefixes (`CLIENT TRACKING` in broadcast mode).
    Tracking,
    /// Redis reports keys by keyspace notifications.
    Keyspace,
    /// Redis reports nothing: known data is read again periodically.
    Rereading,
}

impl InvalidationMode {
    /// The number for metrics: higher is better, 0 is no connection.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tracking => 3,
            Self::Keyspace => 2,
            Self::Rereading => 1,
        }
    }
}

impl fmt::Display for InvalidationMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tracking => "client tracking",
            Self::Keyspace => "keyspace notifications",
            Self::Rereading => "reading again (server.lruCache.ttl)",
        })
    }
}

/// The data that the reading connection needs.
#[derive(Clone, Debug)]
pub(super) struct WatchSession {
    pub(super) number: u64,
    pub(super) server: Server,
    pub(super) identity: Identity,
    pub(super) mode: InvalidationMode,
    /// Whether the server is that of the last driver.
    pub(super) uses_last: bool,
}

/// The watching thread: connects, watches, and starts again.
pub(super) struct Watcher {
    /// The driver that is read from, which may be the last one.
    pub(super) target: Target,
    pub(super) uses_last: bool,
    pub(super) sources: Sources,
    pub(super) events: Sender<Event>,
    pub(super) stop: Stop,
    /// The server is a replica without its master, and that was logged.
    pub(super) is_stale: Cell<bool>,
}

impl Watcher {
    pub(super) fn run(mut self) {
        let mut pause = Pause::default();
        for number in 1.. {
            self.uses_last = self.sources.uses_last();
            self.target = self.sources.get(self.uses_last).clone();
            let result = self.watch(number, &mut pause);
            let problem = result.err().map_or_else(|| "stopped".to_owned(), |error| error.to_string());
            if self.stop.is_set() || self.events.send(Event::WatchLost { number, problem }).is_err() {
                return;
            }
            if pause.wait(&self.stop) {
                return;
            }
        }
    }

    fn watch(&self, number: u64, pause: &mut Pause) -> RedisResult<()> {
        let server = connect::find(&self.target)?;
        let (mut connection, is_resp3) = match connect::open(&self.target, &server, ProtocolVersion::RESP3) {
            Ok(connection) => (connection, true),
            Err(error) if error.is_io_error() || error.code().is_some_and(connect::is_passing) => return Err(error),
            // A server before version 6, or a user without permission for HELLO.
            Err(_) => (connect::open(&self.target, &server, ProtocolVersion::RESP2)?, false),
        };
        let identity = connect::identify(&mut connection)?;
        let mode = self.choose(&mut connection, is_resp3)?;
        pause.reset();
        self.note_link(!identity.has_lost_master);
        let watch = WatchSession { number, server, identity, mode, uses_last: self.uses_last };
        if self.events.send(Event::Watching(watch)).is_err() {
            return Ok(());
        }
        self.hear(&mut connection, is_resp3)
    }

    fn choose(&self, connection: &mut Connection, is_resp3: bool) -> RedisResult<InvalidationMode> {
        if is_resp3 {
            match reports::track(connection, &self.target) {
                Ok(()) => return Ok(InvalidationMode::Tracking),
                Err(error) if error.is_io_error() => return Err(error),
                Err(error) => log::warn!("redis: client tracking is not available: {error}"),
            }
        }
        let flags = match connect::ask(connection, cmd("CONFIG").arg("GET").arg("notify-keyspace-events")) {
            Ok(Value::Array(pair)) => pair.into_iter().nth(1),
            Ok(Value::Map(pairs)) => pairs.into_iter().next().map(|(_, value)| value),
            Err(error) if error.is_io_error() => return Err(error),
            _ => None,
        };
        let flags: String = flags.and_then(|flags| redis::from_redis_value(flags).ok()).unwrap_or_default();
        let has_all = |needed: &str| needed.chars().all(|flag| flags.contains(flag));
        if !(has_all("KA") || has_all("Kglshx$")) {
            return Ok(InvalidationMode::Rereading);
        }
        let patterns = self.patterns();
        connection.send(&cmd("PSUBSCRIBE").arg(&patterns).get_packed_command())?;
        for _ in &patterns {
            // Confirmations are pushes with RESP3, and plain replies otherwise.
            if let Some(Value::ServerError(error)) = connection.receive()? {
                log::warn!("redis: keyspace notifications are not available: {error}");
                return Ok(InvalidationMode::Rereading);
            }
        }
        Ok(InvalidationMode::Keyspace)
    }

    fn patterns(&self) -> Vec<String> {
        let (database, prefix) = (self.target.database, escape(&self.target.prefix));
        let keys = [
            format!("{prefix}frontend:*"),
            format!("{prefix}options:*"),
            format!("{prefix}dead:*"),
            "tls:*".to_owned(),
            format!("{}*", HEALTH_START),
            super::CHECKER_KEY.to_owned(),
        ];
        keys.iter().map(|key| format!("__keyspace@{database}__:{key}")).collect()
    }

    /// Forwards reports until the connection fails.
    fn hear(&self, connection: &mut Connection, is_resp3: bool) -> RedisResult<()> {
        let mut is_asked = false;
        loop {
            match connection.receive()? {
                Some(Value::Push { kind, data }) => self.pass_on(&kind, &data)?,
                // With RESP2 messages are plain replies.
                Some(Value::Array(message)) if is_message(&message) => {
                    self.pass_on(&PushKind::PMessage, &message[1..])?;
                }
                Some(reply) if is_asked => {
                    // The reply to the second command follows.
                    is_asked = is_resp3 && matches!(reply, Value::SimpleString(_));
                    self.judge(reply)?;
                }
                Some(_) => {}
                None if is_asked => return Err((redis::ErrorKind::Io, "it does not reply").into()),
                // After a silence, the connection is checked.
                None => {
                    connection.send(&question(is_resp3))?;
                    is_asked = true;
                }
            }
            self.check_source()?;
            if self.stop.is_set() {
                return Ok(());
            }
        }
    }

    /// Fails if another server is to be read from now.
    fn check_source(&self) -> RedisResult<()> {
        if self.sources.uses_last() == self.uses_last {
            return Ok(());
        }
        Err((redis::ErrorKind::Io, "another driver is read from now").into())
    }

    /// Logs that a replica has lost its master, or has it again. If there is another driver to read from, the choosing
    /// thread logs it.
    fn note_link(&self, is_linked: bool) {
        if self.sources.has_last() || self.is_stale.replace(!is_linked) != is_linked {
            return;
        }
        let target = &self.target;
        if is_linked {
            log::info!("redis: {target} has its master again");
        } else {
            let advice = "name the master as the last driver to have it read instead";
            log::warn!("redis: {target}: {}; {advice}", connect::LOST_MASTER);
        }
    }

    fn has_sentinels(&self) -> bool {
        matches!(self.target.place, Location::Sentinel { .. })
    }

    /// Fails for a server that its sentinels have made a replica: it still replies, but with old data. A server whose
    /// role may not be queried counts as good.
    fn judge(&self, reply: Value) -> RedisResult<()> {
        if let Value::ServerError(error) = &reply
            && (self.has_sentinels() || connect::is_passing(error.code()))
        {
            return Err(error.clone().into());
        }
        match Role::read(&reply) {
            Role::Replica { .. } if self.has_sentinels() => {
                return Err((redis::ErrorKind::Io, "the server is no master any more").into());
            }
            Role::Replica { is_linked, .. } => self.note_link(is_linked),
            Role::Master { .. } => self.note_link(true),
            Role::Unknown => {}
        }
        Ok(())
    }

    fn pass_on(&self, kind: &PushKind, data: &[Value]) -> RedisResult<()> {
        let changed = reports::changed_keys(&self.target, kind, data);
        if changed.is_empty() {
            return Ok(());
        }
        self.events.send(Event::ChangedKey(changed)).map_err(|_| gone())
    }
}

/// The commands that check whether the server is alive, and its role. A server without its master may refuse the first
/// and allow the second. With RESP2 a subscribed connection may not query the role.
fn question(is_resp3: bool) -> Vec<u8> {
    let mut question = cmd("PING").get_packed_command();
    if is_resp3 {
        cmd("ROLE").write_packed_command(&mut question);
    }
    question
}

fn is_text(value: &Value, text: &str) -> bool {
    matches!(value, Value::BulkString(bytes) if bytes == text.as_bytes())
}

/// Whether a plain reply is a message of a pattern subscription.
fn is_message(reply: &[Value]) -> bool {
    reply.len() == 4 && is_text(&reply[0], "pmessage")
}

/// The directory has ended.
fn gone() -> RedisError {
    (redis::ErrorKind::Io, "the directory has ended").into()
}

/// A prefix as a glob pattern that matches only itself.
pub(super) fn escape(prefix: &str) -> String {
    prefix.chars().flat_map(|char| ("*?[]\\".contains(char)).then_some('\\').into_iter().chain([char])).collect()
}
