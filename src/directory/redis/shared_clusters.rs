//! On-demand clusters in Redis, shared by all nodes. Keys, behind the prefix of the driver:
//!
//! | key | type | content |
//! |---|---|---|
//! | `ondemand` | hash | The name of a cluster → the revision of its last edit, a line break, `# created ` and a number that tells it from an earlier cluster of its name, a line break, its text |
//! | `ondemand:matches` | hash | `host:port`, either of them may be empty → the cluster that serves such requests |
//! | `ondemand:log` | stream | The last edits: an entry `<revision>-0` with the name of the cluster, under `removed` where it was removed, else under `name` |
//!
//! In a Redis Cluster the keys begin with `{ondemand}`, a hash tag, since a script needs its keys at one server.
//!
//! One script makes all edits, each atomically. Each edit has a revision, one more than the edit before, and is made
//! only if the cluster has the revision that its editor knows. So an edit of one node never overwrites an edit of
//! another. A cluster that was removed and created again has another number, so a node that missed both
//! edits does not take it for the earlier one.

use super::link::{Link, entries, odd, parsed, read_entries};
use super::target::Target;
use redis::{RedisResult, cmd};
use std::collections::BTreeMap;

/// The longest text of a cluster, in bytes.
pub(in crate::directory) const MAX_RECORD: usize = 1 << 20;
/// Number of clusters that are read at once.
const BATCH: usize = 100;
/// The least number of log entries that are kept. A node that has missed more reads all clusters.
const MAX_LOG: usize = 10_000;
/// Milliseconds for which Redis waits for the next edit. The limit of a reply is longer
/// ([`super::connection::PATIENCE`]).
const WAIT_MS: usize = 500;

/// Prefix of the line with the number that tells a cluster from an earlier one of its name. A reader that does not know it sees a comment.
const CREATED: &str = "# created ";

/// Makes an edit; see the module. It replies with the revision and that of the creation, `changed`, or `taken` and the
/// name of the other cluster.
const EDIT: &str = r"
local clusters, matches, log = KEYS[1], KEYS[2], KEYS[3]
local name, known, before, after, text = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local record = redis.call('HGET', clusters, name)
if (record and string.match(record, '^%d+') or '0') ~= known then return {'changed'} end
local owner = after ~= '' and redis.call('HGET', matches, after)
if owner and owner ~= name and redis.call('HEXISTS', clusters, owner) == 1 then return {'taken', owner} end
local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
newest = newest and tonumber(string.match(newest[1], '^%d+')) or 0
local revision = string.format('%.0f', math.max(newest + 1, tonumber(ARGV[6])))
local created = ARGV[8]
if created == '0' then
  created = record and (string.match(record, '^%d+\n# created (%d+)\n') or '0') or revision
end
redis.call('XADD', log, 'MAXLEN', '~', ARGV[7], revision .. '-0', text == '' and 'removed' or 'name', name)
if before ~= '' and redis.call('HGET', matches, before) == name then redis.call('HDEL', matches, before) end
if after ~= '' then redis.call('HSET', matches, after, name) end
if text == '' then redis.call('HDEL', clusters, name)
else redis.call('HSET', clusters, name,
  revision .. '\n' .. (created == '0' and '' or '# created ' .. created .. '\n') .. text) end
return {revision, created}
";

/// A cluster in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::directory) struct Record {
    pub(in crate::directory) revision: u64,
    /// The number that tells it from an earlier cluster of its name; 0 if that is unknown.
    pub(in crate::directory) created: u64,
    pub(in crate::directory) text: String,
}

/// An edit to be made.
#[derive(Debug, Default)]
pub(in crate::directory) struct Edit<'e> {
    pub(in crate::directory) name: &'e str,
    /// The revision that the cluster must have; 0 if it must not exist.
    pub(in crate::directory) known: u64,
    /// The requests that the cluster served, and serves now, as `host:port`; empty for none.
    pub(in crate::directory) match_before: &'e str,
    pub(in crate::directory) match_after: &'e str,
    /// The new text; empty to remove the cluster.
    pub(in crate::directory) text: &'e str,
    /// The least revision for the edit.
    pub(in crate::directory) least: u64,
    /// The number that tells the cluster from an earlier one of its name; 0 if Redis knows it, or for the revision of this edit.
    pub(in crate::directory) created: u64,
}

/// An edit that was made.
#[derive(Debug)]
pub(in crate::directory) struct LoggedEdit {
    pub(in crate::directory) revision: u64,
    /// The cluster.
    pub(in crate::directory) name: String,
    /// Whether the cluster was removed.
    pub(in crate::directory) is_removal: bool,
}

/// The outcome of an edit.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::directory) enum Outcome {
    /// It was made.
    Made {
        revision: u64,
        /// The number that tells the cluster from an earlier one of its name; 0 if that is unknown.
        created: u64,
    },
    /// The cluster has another revision.
    Changed,
    /// This other cluster serves the same requests.
    Taken(String),
}

/// The clusters, accessed by its own connection, which is opened on demand.
pub(in crate::directory) struct SharedClusters {
    link: Link,
    /// The begin of all keys, behind the prefix.
    start: &'static str,
}

impl SharedClusters {
    pub(in crate::directory) fn new(target: &Target) -> Self {
        let start = if target.is_cluster() { "{ondemand}" } else { "ondemand" };
        Self { link: Link::new(target), start }
    }

    fn key(&self, name: &str) -> String {
        self.link.key(&format!("{}{name}", self.start))
    }

    /// The revision of the newest edit; 0 if there was none.
    pub(in crate::directory) fn newest(&mut self) -> RedisResult<u64> {
        let log = self.key(":log");
        let reply = self.link.ask(cmd("XREVRANGE").arg(log).arg("+").arg("-").arg("COUNT").arg(1))?;
        Ok(news(entries(reply)?)?.last().map_or(0, |edit| edit.revision))
    }

    /// All clusters.
    pub(in crate::directory) fn read_all(&mut self) -> RedisResult<BTreeMap<String, Record>> {
        let (key, mut records, mut cursor) = (self.key(""), BTreeMap::new(), 0_u64);
        loop {
            let reply = self.link.ask(cmd("HSCAN").arg(&key).arg(cursor).arg("COUNT").arg(BATCH))?;
            let (next, pairs): (u64, Vec<Vec<u8>>) = parsed(reply)?;
            for pair in pairs.chunks_exact(2) {
                let name = String::from_utf8_lossy(&pair[0]).into_owned();
                records.insert(name, record(&pair[1]));
            }
            cursor = next;
            if cursor == 0 {
                return Ok(records);
            }
        }
    }

    /// The clusters with these names.
    pub(in crate::directory) fn read(&mut self, names: &[String]) -> RedisResult<Vec<(String, Option<Record>)>> {
        let (key, mut records) = (self.key(""), Vec::with_capacity(names.len()));
        for names in names.chunks(BATCH) {
            let texts: Vec<Option<Vec<u8>>> = parsed(self.link.ask(cmd("HMGET").arg(&key).arg(names))?)?;
            for (name, text) in names.iter().zip(texts) {
                records.push((name.clone(), text.map(|text| record(&text))));
            }
        }
        Ok(records)
    }

    /// Makes an edit. After a failure of the connection the edit may have been made.
    pub(in crate::directory) fn write(&mut self, edit: &Edit<'_>) -> RedisResult<Outcome> {
        let mut command = cmd("EVAL");
        command.arg(EDIT).arg(3).arg(self.key("")).arg(self.key(":matches")).arg(self.key(":log"));
        command.arg(edit.name).arg(edit.known).arg(edit.match_before).arg(edit.match_after).arg(edit.text);
        command.arg(edit.least).arg(MAX_LOG).arg(edit.created);
        let reply: Vec<String> = parsed(self.link.ask_once(&command)?)?;
        match reply.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["changed"] => Ok(Outcome::Changed),
            ["taken", owner] => Ok(Outcome::Taken((*owner).to_owned())),
            [revision, created] => match (revision.parse(), created.parse()) {
                (Ok(revision), Ok(created)) => Ok(Outcome::Made { revision, created }),
                _ => Err(odd("the revision of an edit is no number")),
            },
            _ => Err(odd("the script of edits has replied something else")),
        }
    }

    /// Waits for edits behind this revision. It may return none after a while.
    pub(in crate::directory) fn wait(&mut self, seen: u64) -> RedisResult<Vec<LoggedEdit>> {
        let log = self.key(":log");
        let mut command = cmd("XREAD");
        command.arg("COUNT").arg(BATCH).arg("BLOCK").arg(WAIT_MS).arg("STREAMS").arg(log).arg(format!("{seen}-0"));
        news(read_entries(self.link.ask_once(&command)?)?)
    }

    /// Fails if sentinels have made another server the master.
    pub(in crate::directory) fn check_master(&mut self) -> RedisResult<()> {
        self.link.check_master()
    }
}

/// The edits described by log entries.
fn news(entries: Vec<(String, String, String)>) -> RedisResult<Vec<LoggedEdit>> {
    let edit = |(id, kind, name): (String, String, String)| {
        let revision = id.split('-').next().and_then(|revision| revision.parse().ok());
        revision
            .map(|revision| LoggedEdit { revision, name, is_removal: kind == "removed" })
            .ok_or_else(|| odd("an entry of ondemand:log has no revision"))
    };
    entries.into_iter().map(edit).collect()
}

/// The record of a cluster. An invalid one has the revision 0.
fn record(bytes: &[u8]) -> Record {
    let text = String::from_utf8_lossy(bytes);
    let parts = text.split_once('\n').and_then(|(revision, text)| Some((revision.parse().ok()?, text)));
    let (revision, text) = parts.unwrap_or((0, &text));
    let created = text.strip_prefix(CREATED).and_then(|rest| rest.split_once('\n'));
    let created = created.and_then(|(created, text)| Some((created.parse().ok()?, text)));
    let (created, text) = created.unwrap_or((0, text));
    Record { revision, created, text: text.to_owned() }
}
