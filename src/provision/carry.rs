//! A routes file, carried into Redis: only what differs is written, each list in one step, so that no host is without
//! its route for a moment.

use super::Error;
use crate::directory::redis::{Target, connect};
use crate::directory::{self, read_routes};
use redis::{Connection, Pipeline, cmd, pipe};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// Lists that are read or written in one round trip.
const CHUNK: usize = 500;
/// How often what is in Redis is compared with the file though this has not changed: somebody may have lost it.
const COMPARE: Duration = Duration::from_secs(10);
/// How long to wait after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Lists that were written because they were missing or others.
    pub written: usize,
    /// Lists that were removed because the file does not have them.
    pub removed: usize,
    /// Lists that were as they should be.
    pub same: usize,
    /// Lists that the file does not have and that were left.
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

/// Makes Redis have what the file has. With `prune` it has nothing else then.
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
        }
        // A key of another type is no list: it is written over.
        questions.ignore_errors();
        let found: Vec<redis::RedisResult<Vec<String>>> =
            questions.query(connection).map_err(Error::redis("reading lists"))?;
        for (wanted, found) in chunk.iter().zip(found) {
            match found {
                Ok(found) if found == *wanted.1 => carried.same += 1,
                _ => changed.push(*wanted),
            }
        }
    }
    for chunk in changed.chunks(CHUNK) {
        write(target, chunk).exec(connection).map_err(Error::redis("writing lists"))?;
        carried.written += chunk.len();
    }
    let strange = strangers(connection, target, &routes)?;
    if prune {
        for chunk in strange.chunks(CHUNK) {
            cmd("DEL").arg(chunk).exec(connection).map_err(Error::redis("removing lists"))?;
            carried.removed += chunk.len();
        }
    } else {
        carried.left = strange.len();
    }
    Ok(carried)
}

fn write(target: &Target, lists: &[(&String, &Vec<String>)]) -> Pipeline {
    let mut pipeline = pipe();
    // One transaction: what reads in between sees the old lists or the new ones.
    pipeline.atomic();
    for (pattern, items) in lists {
        let key = target.frontend_key(pattern);
        pipeline.cmd("DEL").arg(&key).ignore();
        pipeline.cmd("RPUSH").arg(&key).arg(*items).ignore();
    }
    pipeline
}

/// The keys of lists that are not in the file.
fn strangers(
    connection: &mut Connection,
    target: &Target,
    routes: &BTreeMap<String, Vec<String>>,
) -> Result<Vec<String>, Error> {
    let start = target.frontend_key("");
    let keys = super::explain::keys(connection, target)?;
    Ok(keys
        .into_iter()
        .filter(|key| key.strip_prefix(&start).is_none_or(|pattern| !routes.contains_key(pattern)))
        .collect())
}

/// Carries the file now, whenever it changes, and when somebody else has changed what is in Redis; for ever. `tell` is
/// told of what was done and of what failed.
pub fn keep_in_step(
    file: &Path,
    target: &Target,
    prune: bool,
    mut tell: impl FnMut(Result<Carried, Error>),
) -> Result<(), Error> {
    let (changes_out, changes) = crossbeam_channel::bounded(1);
    let on_change = move || {
        // If there is no room, the news of a change is still to be read.
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
