//! What a host resolves to, step by step, as text.

use super::Error;
use crate::base::printable::printable;
use crate::base::secret::{redact_identifier, redact_url};
use crate::directory::redis::{Target, connect};
use crate::route;
use redis::{Connection, RedisResult, cmd, pipe};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

/// The ladder of a host, the list that serves it with its options, and the dead marks with their rest of life.
pub fn explain(target: &Target, host: &str) -> Result<String, Error> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let connection = &mut connect(target).map_err(Error::redis(format!("connecting to {target}")))?;
    let (dead, ttl): (BTreeSet<usize>, i64) = pipe()
        .cmd("SMEMBERS")
        .arg(target.dead_key(&host))
        .cmd("PTTL")
        .arg(target.dead_key(&host))
        .query(connection)
        .map_err(Error::redis("reading dead marks"))?;
    let mut text = format!("{host} at {target}\n");
    let mut is_served = false;
    for pattern in route::patterns(&host) {
        let key = target.frontend_key(&pattern);
        let list: RedisResult<Vec<String>> = cmd("LRANGE").arg(&key).arg(0).arg(-1).query(connection);
        let note = match &list {
            _ if is_served => "not asked for".to_owned(),
            Err(error) if error.is_io_error() => {
                return Err(Error::Redis { doing: format!("reading {key}"), error: error.clone() });
            }
            Err(error) => format!("cannot be used: {error}"),
            Ok(list) if list.is_empty() => "nothing".to_owned(),
            Ok(list) => format!("serves: {:?}, {} backends", redact_identifier(&list[0]), list.len() - 1),
        };
        let _ = writeln!(text, "  {key}  {note}");
        if !is_served && let Ok([_, backends @ ..]) = list.as_deref() {
            put_backends(&mut text, backends, &dead, ttl);
            put_options(&mut text, &target.options_key(&pattern), connection)?;
        }
        is_served |= list.map_or(true, |list| !list.is_empty());
    }
    if !is_served {
        text.push_str("  no route: requests get a 400\n");
    }
    Ok(text)
}

fn put_backends(text: &mut String, backends: &[String], dead: &BTreeSet<usize>, ttl: i64) {
    for (index, url) in backends.iter().enumerate() {
        let mark = match (dead.contains(&index), u64::try_from(ttl)) {
            (false, _) => String::new(),
            (true, Ok(millis)) => format!("  dead for {:.1?} more", Duration::from_millis(millis)),
            (true, Err(_)) => "  dead until somebody takes the mark back".to_owned(),
        };
        let _ = writeln!(text, "    {index}  {}{mark}", printable(&redact_url(url)));
    }
}

fn put_options(text: &mut String, key: &str, connection: &mut Connection) -> Result<(), Error> {
    match cmd("HGETALL").arg(key).query::<BTreeMap<String, String>>(connection) {
        Err(error) if error.is_io_error() => return Err(Error::redis(format!("reading {key}"))(error)),
        Err(error) => {
            let _ = writeln!(text, "    {key}  cannot be used: {error}");
        }
        Ok(options) => {
            for (name, value) in options {
                let _ = writeln!(text, "    {name}: {value}");
            }
        }
    }
    Ok(())
}

/// All patterns, a line each: the pattern, the identifier, the number of backends.
pub fn list(target: &Target) -> Result<String, Error> {
    let connection = &mut connect(target).map_err(Error::redis(format!("connecting to {target}")))?;
    let mut text = String::new();
    for pattern in patterns(connection, &target.frontend_key(""))? {
        match cmd("LRANGE").arg(target.frontend_key(&pattern)).arg(0).arg(-1).query::<Vec<String>>(connection) {
            Ok(list) => {
                let id = list.first().map_or_else(Default::default, |id| redact_identifier(id));
                let _ = writeln!(text, "{pattern}  {id:?}  {} backends", list.len().saturating_sub(1));
            }
            Err(error) => {
                let _ = writeln!(text, "{pattern}  cannot be used: {error}");
            }
        }
    }
    Ok(text)
}

/// What follows `start` in the keys that begin with it, in order.
pub(super) fn patterns(connection: &mut Connection, start: &str) -> Result<BTreeSet<String>, Error> {
    let mut patterns = BTreeSet::new();
    let mut cursor = 0_u64;
    // What has a special meaning in the prefix is escaped; the keys are compared besides.
    let pattern: String =
        start.chars().flat_map(|char| ("*?[]\\".contains(char)).then_some('\\').into_iter().chain([char])).collect();
    loop {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{pattern}*")).arg("COUNT").arg(1000);
        let (next, found): (u64, Vec<String>) = scan.query(connection).map_err(Error::redis("listing keys"))?;
        patterns.extend(found.iter().filter_map(|key| key.strip_prefix(start)).map(str::to_owned));
        cursor = next;
        if cursor == 0 {
            return Ok(patterns);
        }
    }
}
