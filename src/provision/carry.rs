//! Copying a routes file into Redis: only differences are written, each list together with its options, so that no host
//! is without its route for a moment.

use super::Error;
use crate::directory::redis::{Target, ToolConnection, connect};
use crate::directory::{self, Entry, read_routes};
use redis::{Pipeline, RedisResult, cmd, pipe};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// Number of lists that are read or written in one round trip.
const CHUNK: usize = 500;
/// The interval of comparisons of Redis with an unchanged file: Redis may have lost its data.
const COMPARE: Duration = Duration::from_secs(10);
/// The delay after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// The result. A list with its options counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Lists that were written because they were missing or different.
    pub written: usize,
    /// Lists that were removed because they are not in the file.
    pub removed: usize,
    /// Lists that were up to date.
    pub same: usize,
    /// Lists that are not in the file and were kept.
    pub left: usize,
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { written, removed, same, left } = self;
        write!(f, "{written} lists written, {removed} removed, {same} as they were")?;
        match left {
            0 => Ok(()),
            left => write!(f, "; {left} that the file does not have were left (--prune removes them)"),
        }
    }
}

/// Makes Redis match the file. With `prune` all other lists are removed.
pub fn carry(file: &Path, target: &Target, prune: bool) -> Result<Carried, Error> {
    let routes = read_routes(file).map_err(Error::File)?;
    let connection = &mut connect(target).map_err(Error::redis(format!("connecting to {target}")))?;
    let mut carried = Carried::default();
    let mut changed = Vec::new();
    let all: Vec<_> = routes.iter().collect();
    for chunk in all.chunks(CHUNK) {
        let mut questions = pipe();
        for (pattern, _) in chunk {
            questions.cmd("LRANGE").arg(target.frontend_key(pattern)).arg(0).arg(-1);
            questions.cmd("HGETALL").arg(target.options_key(pattern));
        }
        // A key with another type is not a list, and is overwritten.
        questions.ignore_errors();
        let found: Vec<RedisResult<Vec<String>>> =
            questions.query(connection).map_err(Error::redis("reading lists"))?;
        for (wanted, [list, options]) in chunk.iter().zip(found.as_chunks::<2>().0) {
            match (list, options) {
                (Ok(list), Ok(fields)) if *list == wanted.1.items && is_hash(fields, &wanted.1.options) => {
                    carried.same += 1;
                }
                _ => changed.push(*wanted),
            }
        }
    }
    for chunk in changed.chunks(CHUNK) {
        if connection.is_cluster() {
            write_to_cluster(connection, target, chunk).map_err(Error::redis("writing lists"))?;
        } else {
            write(target, chunk).exec(connection).map_err(Error::redis("writing lists"))?;
        }
        carried.written += chunk.len();
    }
    let strange = unlisted_patterns(connection, target, &routes)?;
    if prune {
        for chunk in strange.chunks(CHUNK) {
            let keys = chunk.iter().flat_map(|pattern| [target.frontend_key(pattern), target.options_key(pattern)]);
            let keys: Vec<_> = keys.collect();
            if connection.is_cluster() {
                let mut removal = pipe();
                keys.iter().for_each(|key| _ = removal.del(key).ignore());
                removal.exec(connection).map_err(Error::redis("removing lists"))?;
                carried.removed += chunk.len();
                continue;
            }
            cmd("DEL").arg(keys).exec(connection).map_err(Error::redis("removing lists"))?;
            carried.removed += chunk.len();
        }
    } else {
        carried.left = strange.len();
    }
    Ok(carried)
}

/// Whether alternating fields and values of a hash equal these.
fn is_hash(fields: &[String], wanted: &BTreeMap<String, String>) -> bool {
    let fields = fields.as_chunks::<2>().0;
    fields.len() == wanted.len() && fields.iter().all(|[name, value]| wanted.get(name) == Some(value))
}

fn write(target: &Target, lists: &[(&String, &Entry)]) -> Pipeline {
    let mut pipeline = pipe();
    // One transaction: a reader sees the old lists or the new ones.
    pipeline.atomic();
    for (pattern, Entry { items, options }) in lists {
        let (list, hash) = (target.frontend_key(pattern), target.options_key(pattern));
        pipeline.cmd("DEL").arg(&list).arg(&hash).ignore();
        if !options.is_empty() {
            pipeline.hset_multiple(&hash, &options.iter().collect::<Vec<_>>()).ignore();
        }
        pipeline.cmd("RPUSH").arg(&list).arg(items).ignore();
    }
    pipeline
}

/// In a cluster a list and its options may be at two servers: first all options are written, then all lists, each in a
/// transaction of its own.
fn write_to_cluster(connection: &mut ToolConnection, target: &Target, lists: &[(&String, &Entry)]) -> RedisResult<()> {
    for (pattern, Entry { options, .. }) in lists {
        let hash = target.options_key(pattern);
        let mut transaction = pipe();
        transaction.atomic().del(&hash).ignore();
        if !options.is_empty() {
            transaction.hset_multiple(&hash, &options.iter().collect::<Vec<_>>()).ignore();
        }
        transaction.exec(connection)?;
    }
    for (pattern, Entry { items, .. }) in lists {
        let list = target.frontend_key(pattern);
        pipe().atomic().del(&list).ignore().rpush(&list, items).ignore().exec(connection)?;
    }
    Ok(())
}

/// The patterns of lists and options that are not in the file.
fn unlisted_patterns(
    connection: &mut ToolConnection,
    target: &Target,
    routes: &BTreeMap<String, Entry>,
) -> Result<Vec<String>, Error> {
    let mut patterns = BTreeSet::new();
    for start in [target.frontend_key(""), target.options_key("")] {
        patterns.extend(super::explain::patterns(connection, &start)?);
    }
    Ok(patterns.into_iter().filter(|pattern| !routes.contains_key(pattern)).collect())
}

/// Copies the file now, whenever it changes, and when another program has changed Redis; it never returns. `tell`
/// receives each result and each failure.
pub fn keep_in_step(
    file: &Path,
    target: &Target,
    prune: bool,
    mut tell: impl FnMut(Result<Carried, Error>),
) -> Result<(), Error> {
    let (changes_out, changes) = crossbeam_channel::bounded(1);
    let on_change = move || {
        // If there is no room, a change is pending already.
        let _ = changes_out.try_send(());
    };
    let _watching = directory::watch_file(file, on_change).map_err(Error::Watch)?;
    let mut is_first = true;
    loop {
        let result = carry(file, target, prune);
        let pause = if result.is_ok() { COMPARE } else { AGAIN };
        let is_news = result.as_ref().map_or(true, |carried| carried.written + carried.removed > 0);
        if is_first || is_news {
            tell(result);
        }
        is_first = false;
        let _ = changes.recv_timeout(pause);
    }
}
