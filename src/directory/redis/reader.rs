//! The reading connection: all candidate patterns of many hosts in one round trip.
//!
//! A host whose replies are too long, or do not end, must not affect other hosts: the connection is closed at that
//! point, the host gets this result, and the rest of the batch is queried again on a new connection.

use super::channel::Channel;
use super::connect::{self, Identity, Role, Server};
use super::connection::{DEADLINE, MAX_REPLY};
use super::jobs::{Job, Jobs};
use super::odd_keys::Spellings;
use super::reading::{self, MAX_FIELDS, MAX_ITEMS, Reading};
use super::resp;
use super::route_state::{Batch, ChangedKey, Replies};
use super::shards::client::{Difficulty, WatchedMap};
use super::shards::topology::ShardEvent;
use super::sources::Sources;
use super::target::Target;
use super::watcher::WatchSession;
use super::{CHECKER_KEY, Event, HEALTH_START, Pause, Stop, TOO_LONG_FOR};
use crate::base::clock::{Clock, Moment};
use crate::base::reason::FailureReason;
use crate::route;
use crossbeam_channel::Sender;
use redis::{ErrorKind, RedisError, RedisResult, Value, cmd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Memory limit of the replies to one batch, in bytes. Hosts beyond it are left for the next batch.
const MAX_BATCH: usize = 4 * MAX_REPLY;
/// The greatest number of keys that are remembered as too long.
const MAX_TOO_LONG: usize = 64;

/// The reading thread.
pub(super) struct RouteReader {
    /// The driver that is read from.
    pub(super) target: Target,
    pub(super) sources: Sources,
    pub(super) spellings: Spellings,
    /// The servers of a cluster.
    pub(super) map: WatchedMap,
    pub(super) jobs: Jobs,
    pub(super) events: Sender<Event>,
    pub(super) stop: Stop,
    pub(super) clock: Clock,
}

/// The commands that were sent for a host.
struct Asked {
    /// The number of commands for its patterns and itself.
    count: usize,
    /// The places of patterns with other spellings, and those, for which two further commands each were sent.
    others: Vec<(usize, Box<str>)>,
}

impl Asked {
    /// Puts the replies about the only other spelling that has a list in the place of a pattern without one.
    fn take_others(&self, own: &mut [Value], others: &[[Value; 2]]) {
        let listed = || self.others.iter().zip(others).filter(|(_, [list, _])| !reading::is_no_list(list));
        for ((place, _), [list, options]) in listed() {
            let is_only = listed().filter(|((other, _), _)| other == place).count() == 1;
            if is_only && reading::is_no_list(&own[2 * place]) {
                own[2 * place] = list.clone();
                if !reading::has_no_fields(options) {
                    own[2 * place + 1] = options.clone();
                }
            }
        }
    }
}

struct ReadConnection {
    connection: Channel,
    server: Server,
    identity: Identity,
    number: u64,
    /// The position of its data can be queried.
    has_role: bool,
}

/// Keys that are not read for a while, because their last reply was too long.
#[derive(Default)]
struct TooLong(Vec<(String, Moment)>);

impl TooLong {
    fn contains(&self, key: &str) -> bool {
        self.0.iter().any(|(known, _)| known == key)
    }

    fn forget_old(&mut self, now: Moment) {
        self.0.retain(|(_, until)| *until > now);
    }

    fn note(&mut self, key: String, now: Moment) {
        if self.0.len() < MAX_TOO_LONG {
            self.0.push((key, now + TOO_LONG_FOR));
        }
    }
}

impl RouteReader {
    pub(super) fn run(mut self) {
        let (mut line, mut pause, mut is_lost) = (None, Pause::default(), false);
        let mut too_long = TooLong::default();
        while let Some(job) = self.jobs.take() {
            let event = match job {
                Job::Connect(watch) => {
                    line = None;
                    self.target = self.sources.get(watch.uses_last).clone();
                    // The pause keeps a server that accepts connections and refuses queries from being retried in a
                    // tight loop.
                    if std::mem::take(&mut is_lost) && pause.wait(&self.stop) {
                        return;
                    }
                    match self.connect(&watch) {
                        Some((opened, identity)) => {
                            let number = opened.number;
                            line = Some(opened);
                            Event::Reading { number, identity }
                        }
                        None => continue,
                    }
                }
                Job::Read(batch) => {
                    let Some(open) = &mut line else { continue };
                    match self.read(open, &batch, &mut too_long) {
                        Ok(Some(replies)) => {
                            if !replies.hosts.is_empty() {
                                pause.reset();
                            }
                            Event::Replies(replies)
                        }
                        // As if the database was emptied: it is identified anew before anything counts.
                        Ok(None) => Event::ChangedKey(vec![ChangedKey::All]),
                        Err(error) => {
                            let number = open.number;
                            line = None;
                            is_lost = true;
                            Event::ReaderLost { number, problem: error.to_string() }
                        }
                    }
                }
            };
            if self.stop.is_set() || self.events.send(event).is_err() {
                return;
            }
        }
    }

    /// Tries until it succeeds, or another job arrives.
    fn connect(&self, watch: &WatchSession) -> Option<(ReadConnection, Identity)> {
        let mut pause = Pause::default();
        while self.jobs.are_none() && !self.stop.is_set() {
            match self.try_connect(&watch.server, &watch.identity.run_id, watch.number) {
                Ok(opened) => {
                    let identity = opened.identity.clone();
                    return Some((opened, identity));
                }
                Err(error) => {
                    let problem = format!("connecting to read: {error}");
                    self.events.send(Event::Unreadable { number: watch.number, problem }).ok()?;
                }
            }
            if pause.wait(&self.stop) {
                break;
            }
        }
        None
    }

    fn try_connect(&self, server: &Server, run_id: &str, number: u64) -> RedisResult<ReadConnection> {
        let mut connection = match server {
            Server::Cluster => Channel::watched(&self.target, &self.map),
            server => Channel::open_server(&self.target, server)?,
        };
        self.probe(&mut connection)?;
        // This comes last: while a replica loads its master's data it replies to this alone, with its earlier identity.
        let identity = connection.single().map_or(Ok(Identity::default()), connect::identify)?;
        if identity.run_id != run_id {
            // With two servers behind one address, reports of one say nothing about the other.
            return Err((ErrorKind::Io, "another server responds there than the watched one").into());
        }
        let has_role = connection.single().is_some();
        Ok(ReadConnection { connection, server: server.clone(), identity, number, has_role })
    }

    fn probe(&self, connection: &mut Channel) -> RedisResult<()> {
        // Missing permissions show here, where attempts have pauses between them. The replies are empty, since values
        // may be too long.
        let mut probe = cmd("LRANGE").arg(self.target.frontend_key("*")).arg(1).arg(0).get_packed_command();
        self.ask_for_options("*").arg("MATCH").arg("-").write_packed_command(&mut probe);
        cmd("SRANDMEMBER").arg(self.target.dead_key("*")).arg(0).write_packed_command(&mut probe);
        cmd("GET").arg(CHECKER_KEY).write_packed_command(&mut probe);
        let replies = connection.ask_all(&probe, 4, MAX_REPLY)?;
        connection.finish();
        self.report(connection)?;
        // In a cluster, a part of the keys may be away.
        let is_single = connection.single().is_some();
        if let Some(error) = replies.iter().filter(|_| is_single).find_map(refusal).or_else(|| denial(&replies[0])) {
            return Err(error);
        }
        for (reply, what) in replies[1..].iter().zip(["options", "dead marks", CHECKER_KEY]) {
            if let Some(error) = denial(reply) {
                log::warn!("redis: {what} may not be read, and count as absent: {error}");
            }
        }
        Ok(())
    }

    /// Reports difficulties with servers of a cluster.
    fn report(&self, connection: &mut Channel) -> RedisResult<()> {
        for difficulty in connection.take_difficulties() {
            let event = match difficulty {
                Difficulty::Unreadable { session, problem } => ShardEvent::Unreadable { session, problem },
                Difficulty::Redirected(address) => ShardEvent::Redirected(address),
            };
            let sent = self.events.send(Event::Shard(event));
            sent.map_err(|_| RedisError::from((ErrorKind::Io, "the directory has ended")))?;
        }
        Ok(())
    }

    /// Reads a batch, or the start of it. A connection that was closed while idle is opened again, once; one that was
    /// closed because of a reply is opened again too. `None` if the server has other data than when it was connected, as
    /// a replica has that has loaded another master's: its replies do not count.
    fn read(&self, line: &mut ReadConnection, batch: &Batch, too_long: &mut TooLong) -> RedisResult<Option<Replies>> {
        too_long.forget_old(self.clock.now());
        let mut replies = match self.try_read(line, batch, too_long) {
            Err(error) if !error.is_timeout() && !line.connection.is_open() => {
                log::debug!("redis: {error}; connecting again");
                if !self.renew(line)? {
                    return Ok(None);
                }
                self.try_read(line, batch, too_long)?
            }
            result => result?,
        };
        if !line.connection.is_open() {
            replies.unread = batch.hosts[replies.hosts.len()..].to_vec();
            if !self.renew(line)? {
                return Ok(None);
            }
            replies.offset = line.identity.offset;
        } else if batch.confirms
            && let Some(connection) = line.connection.single()
        {
            // It is queried after the replies, so it is that of their data or of later data.
            let identity = connect::identify(connection)?;
            if !identity.has_history_of(&line.identity) {
                return Ok(None);
            }
            line.identity = identity;
        }
        Ok(Some(replies))
    }

    /// Connects again. Returns whether the data is what it was.
    fn renew(&self, line: &mut ReadConnection) -> RedisResult<bool> {
        let renewed = self.try_connect(&line.server, &line.identity.run_id, line.number)?;
        let before = std::mem::replace(line, renewed).identity;
        Ok(line.identity.has_history_of(&before))
    }

    /// Reads to the end, or to a host whose replies do not end.
    fn try_read(&self, line: &mut ReadConnection, batch: &Batch, too_long: &mut TooLong) -> RedisResult<Replies> {
        let connection = &mut line.connection;
        let mut packed = Vec::new();
        let mut asked = Vec::with_capacity(batch.hosts.len());
        for host in &batch.hosts {
            asked.push(self.pack(host, too_long, &mut packed));
        }
        if batch.checker {
            cmd("GET").arg(CHECKER_KEY).write_packed_command(&mut packed);
        }
        // It is queried last, so that earlier replies are no newer.
        if line.has_role {
            cmd("ROLE").write_packed_command(&mut packed);
        }
        connection.send(&packed)?;
        let mut replies = Replies::none(batch);
        let mut left = MAX_BATCH;
        for (host, asked) in batch.hosts.iter().zip(asked) {
            let mut budget = MAX_REPLY;
            match self.read_host(connection, host, &asked, &mut budget) {
                Ok(reading) => replies.hosts.push((Arc::clone(host), reading)),
                Err((error, place)) => {
                    let key = self.key(host, &asked, place);
                    let Some(reading) = self.judge(&error, connection, host, key, too_long) else {
                        return Err(error);
                    };
                    replies.hosts.push((Arc::clone(host), reading));
                    return Ok(replies);
                }
            }
            left = left.saturating_sub(MAX_REPLY - budget);
            if left < MAX_REPLY && replies.hosts.len() < batch.hosts.len() {
                connection.give_up();
                return Ok(replies);
            }
        }
        if batch.checker {
            let reply = connection.reply(&mut { MAX_REPLY })?;
            if connection.single().is_some() {
                refusal(&reply).map_or(Ok(()), Err)?;
            }
            replies.checker = (!reading::is_away(&reply)).then(|| silence(&reply, self.clock.wall(self.clock.now())));
        }
        if line.has_role {
            let role = Role::read(&connection.reply(&mut { MAX_REPLY })?);
            line.has_role = role != Role::Unknown;
            replies.offset = role.offset();
        }
        replies.shard_offsets = connection.finish();
        self.report(connection)?;
        Ok(replies)
    }

    /// Parses the replies about a host. An error comes with the number of the reply that caused it.
    fn read_host(
        &self,
        connection: &mut Channel,
        host: &str,
        asked: &Asked,
        budget: &mut usize,
    ) -> Result<Reading, (RedisError, usize)> {
        let count = asked.count;
        let mut own = Vec::with_capacity(count);
        for place in 0..count + 2 * asked.others.len() {
            let reply = connection.reply(budget).map_err(|error| (error, place))?;
            if let Some(error) = refusal(&reply)
                && !(connection.single().is_none() && reading::is_away(&reply))
            {
                return Err((error, place));
            }
            own.push(reply);
        }
        // Marks and options that may not be read count as absent, and a list that may not be read affects its host
        // only. But a refusal of the last candidate pattern, common to all hosts, means that the permission to read is
        // gone.
        if let Some(error) = own[..count - 3].chunks_exact(2).last().and_then(|candidate| denial(&candidate[0])) {
            return Err((error, count - 5));
        }
        let others = own.split_off(count);
        asked.take_others(&mut own, others.as_chunks::<2>().0);
        let patterns: Vec<_> = route::patterns(host).collect();
        Ok(reading::read(patterns.iter().map(|pattern| &**pattern), &own))
    }

    /// The result for a host from an error at its replies; `None` if the error concerns the server.
    fn judge(
        &self,
        error: &RedisError,
        connection: &Channel,
        host: &str,
        key: String,
        too_long: &mut TooLong,
    ) -> Option<Reading> {
        if resp::is_too_long(error) {
            let size = MAX_REPLY >> 20;
            log::error!(
                "redis: {key}: with it the replies about {host} are longer than {size} MiB; the connection is cut, and \
                 the key is not read for {TOO_LONG_FOR:?}"
            );
            too_long.note(key, self.clock.now());
            return Some(Reading::Unread(FailureReason::BadRoute));
        }
        if error.is_timeout() && connection.is_late() {
            let target = &self.target;
            log::warn!(
                "redis: {target} is away as far as {host} goes: {key} was not read to its end within {DEADLINE:?}; the \
                 connection is cut, and the host is not asked for again for {TOO_LONG_FOR:?}"
            );
            return Some(Reading::Unread(FailureReason::RouteSourceDown));
        }
        None
    }

    /// The key that the reply with this number belongs to, among the commands of [`Self::pack`].
    fn key(&self, host: &str, asked: &Asked, place: usize) -> String {
        if let Some(place) = place.checked_sub(asked.count)
            && let Some((_, written)) = asked.others.get(place / 2)
        {
            return if place % 2 == 0 { self.target.frontend_key(written) } else { self.target.options_key(written) };
        }
        let patterns = route::patterns(host).count();
        match (route::patterns(host).nth(place / 2), place % 2) {
            (Some(pattern), 0) => self.target.frontend_key(&pattern),
            (Some(pattern), _) => self.target.options_key(&pattern),
            (None, 0) if place > 2 * patterns => health_key(host),
            (None, _) => self.target.dead_key(host),
        }
    }

    /// Appends the commands for a host.
    fn pack(&self, host: &str, too_long: &TooLong, packed: &mut Vec<u8>) -> Asked {
        // For a key that is too long only the length is queried: a deleted key has none.
        let length_of = |key: &str| {
            let mut command = cmd("LLEN");
            command.arg(key);
            too_long.contains(key).then_some(command)
        };
        let pack_pattern = |pattern: &str, packed: &mut Vec<u8>| {
            let (list, options) = (self.target.frontend_key(pattern), self.target.options_key(pattern));
            let ask_for_list = || cmd("LRANGE").arg(&list).arg(0).arg(MAX_ITEMS).clone();
            length_of(&list).unwrap_or_else(ask_for_list).write_packed_command(packed);
            length_of(&options).unwrap_or_else(|| self.ask_for_options(pattern)).write_packed_command(packed);
        };
        let mut asked = Asked { count: 3, others: Vec::new() };
        for (place, pattern) in route::patterns(host).enumerate() {
            pack_pattern(&pattern, packed);
            asked.others.extend(self.spellings.of(&pattern).into_iter().map(|written| (place, written)));
            asked.count += 2;
        }
        let dead = self.target.dead_key(host);
        // The whole set is queried, with a limit: a larger set cannot consist of marks, and reading it would delay all
        // others.
        let ask_for_marks = || cmd("SRANDMEMBER").arg(&dead).arg(MAX_ITEMS).clone();
        length_of(&dead).unwrap_or_else(ask_for_marks).write_packed_command(packed);
        cmd("PTTL").arg(&dead).write_packed_command(packed);
        let health = health_key(host);
        let ask_for_health = || cmd("HMGET").arg(&health).arg("path").arg("body").arg("status").clone();
        length_of(&health).unwrap_or_else(ask_for_health).write_packed_command(packed);
        asked.others.iter().for_each(|(_, written)| pack_pattern(written, packed));
        asked
    }

    /// The command for the options of a pattern: all of them, up to a limit beyond which they are not options.
    fn ask_for_options(&self, pattern: &str) -> redis::Cmd {
        let mut command = cmd("HSCAN");
        command.arg(self.target.options_key(pattern)).arg(0).arg("COUNT").arg(MAX_FIELDS);
        command
    }
}

/// Time since the active checker's last heartbeat, which is in seconds since 1970.
pub(super) fn silence(reply: &Value, now: SystemTime) -> Option<Duration> {
    let seconds: f64 = redis::from_redis_value_ref::<String>(reply).ok()?.trim().parse().ok()?;
    let at = UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
    // A heartbeat in the future comes from a clock that is ahead.
    Some(now.duration_since(at).unwrap_or_default())
}

/// The key of a host's health check by planb.
fn health_key(host: &str) -> String {
    format!("{HEALTH_START}{host}")
}

/// An error that means the server refuses all queries now; a key with a wrong type is not one, nor is a missing
/// permission.
fn refusal(reply: &Value) -> Option<RedisError> {
    match reply {
        Value::ServerError(error) if !matches!(error.code(), "WRONGTYPE" | "NOPERM") => Some(error.clone().into()),
        _ => None,
    }
}

/// An error that means this user lacks a permission.
fn denial(reply: &Value) -> Option<RedisError> {
    match reply {
        Value::ServerError(error) if error.code() == "NOPERM" => Some(error.clone().into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_is_as_old_as_its_clock_says_and_never_younger_than_now() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (text, expected) in [
            ("999990", Some(10)),
            ("999990.5\n", Some(9)),
            ("1000000", Some(0)),
            // A clock that is ahead, and one that was reset.
            ("1000600", Some(0)),
            ("0", Some(1_000_000)),
            ("18446744073709549568", None),
            ("1e300", None),
            ("-5", None),
            ("NaN", None),
            ("soon", None),
            ("", None),
        ] {
            let found = silence(&Value::BulkString(text.into()), now);
            assert_eq!(found.map(|silent| silent.as_secs()), expected, "{text:?}");
        }
    }
}
