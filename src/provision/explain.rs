//! The resolution of a host, step by step, as text.

use super::Error;
use crate::base::printable::printable;
use crate::base::secret::{redact_identifier, redact_url};
use crate::cluster::BackendUrl;
use crate::directory::redis::{Target, ToolConnection, connect};
use crate::directory::{Entry, KeyPattern, Source, key_pattern, read_routes};
use crate::route;
use crate::wire::host;
use redis::{RedisResult, cmd};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// The explanation for a host.
#[derive(Debug)]
pub struct Explained {
    /// The steps, one a line.
    pub text: String,
    /// Whether a usable list serves requests for the host.
    pub is_served: bool,
}

/// The candidate patterns of a host, the list that serves it with its options, and the dead marks with their remaining
/// time. `host` may have a port, as in a request.
pub fn explain(source: &Source, host: &str) -> Result<Explained, Error> {
    let host = host::host_name(host.as_bytes()).ok_or_else(|| Error::Host(printable(host).into_owned()))?;
    match source {
        Source::Nothing => Ok(Explained {
            text: format!("{host}: rules of HAProxy's files decide here, and no host\n"),
            is_served: false,
        }),
        Source::File(path) => explain_file(path, &host),
        Source::Redis(settings) => explain_redis(&settings.read, &host),
    }
}

fn explain_file(path: &Path, host: &str) -> Result<Explained, Error> {
    let routes = read_routes(path).map_err(Error::File)?;
    let mut text = format!("{host} at file:{}\n", path.display());
    let mut is_served = false;
    for pattern in route::patterns(host) {
        let entry = routes.get(&*pattern).filter(|_| !is_served);
        let note = match entry {
            _ if is_served => "not asked for".to_owned(),
            None => "nothing".to_owned(),
            Some(entry) => format!("serves: {:?}, {} backends", entry.items[0], entry.items.len() - 1),
        };
        let _ = writeln!(text, "  {pattern}  {note}");
        if let Some(Entry { items, options }) = entry {
            put_backends(&mut text, &items[1..], &BTreeSet::new(), -1);
            for (name, value) in options {
                let _ = writeln!(text, "    {name}: {value}");
            }
            is_served = true;
        }
    }
    put_end(&mut text, is_served);
    Ok(Explained { text, is_served })
}

fn put_end(text: &mut String, is_served: bool) {
    if !is_served {
        text.push_str("  no route: requests get a 400\n");
    }
}

fn explain_redis(target: &Target, host: &str) -> Result<Explained, Error> {
    let connection = &mut connect(target).map_err(Error::redis(format!("connecting to {target}")))?;
    let mut text = format!("{host} at {target}\n");
    // A set with another type is ignored, as for requests.
    let dead: RedisResult<BTreeSet<String>> = cmd("SMEMBERS").arg(target.dead_key(host)).query(connection);
    let dead: BTreeSet<usize> = match dead {
        Err(error) if error.is_io_error() => return Err(Error::redis("reading dead marks")(error)),
        dead => dead.unwrap_or_default().iter().filter_map(|index| index.parse().ok()).collect(),
    };
    let ttl = cmd("PTTL").arg(target.dead_key(host)).query(connection).unwrap_or(-1);
    // The first pattern with a list decides, valid or not.
    let (mut decided, mut spellings) = (None, None);
    for pattern in route::patterns(host) {
        let key = target.frontend_key(&pattern);
        if decided.is_some() {
            let _ = writeln!(text, "  {key}  not asked for");
            continue;
        }
        let (mut key, mut written) = (key, None);
        let mut list = read_list(connection, &key)?;
        if list.as_ref().is_ok_and(Vec::is_empty) {
            let spellings = match &spellings {
                Some(spellings) => spellings,
                None => spellings.insert(spellings_of(&patterns(connection, &target.frontend_key(""))?)),
            };
            let others = spellings.get(&*pattern).map(Vec::as_slice).unwrap_or_default();
            let _ = match others {
                [] => writeln!(text, "  {key}  nothing"),
                [_] => writeln!(text, "  {key}  nothing; another spelling of it serves"),
                _ => writeln!(text, "  {key}  nothing, and more than one other spelling: none is used"),
            };
            let [other] = others else { continue };
            key = target.frontend_key(other);
            list = read_list(connection, &key)?;
            written = Some(other.clone());
        }
        let list = match list {
            Err(error) => {
                let _ = writeln!(text, "  {key}  cannot be used: {error}; requests get a 502");
                decided = Some(false);
                continue;
            }
            Ok(list) => list,
        };
        let Some((id, backends)) = list.split_first() else { continue };
        let is_good = backends.is_empty() || backends.iter().any(|url| BackendUrl::parse(url).is_ok());
        let verdict = if is_good { "serves" } else { "cannot be used, requests get a 502" };
        let id = printable(&redact_identifier(id)).into_owned();
        let _ = writeln!(text, "  {key}  {verdict}: {id:?}, {} backends", backends.len());
        if BackendUrl::parse(&list[0]).is_ok() {
            text.push_str("    item 0 is a URL, but item 0 of a list is an identifier and no backend\n");
        }
        put_backends(&mut text, backends, &dead, ttl);
        put_options(&mut text, &target.options_key(written.as_deref().unwrap_or(&pattern)), connection)?;
        decided = Some(is_good);
    }
    if decided.is_none() {
        put_end(&mut text, false);
    }
    Ok(Explained { text, is_served: decided == Some(true) })
}

/// A list; the inner error is that of a key of another type.
fn read_list(connection: &mut ToolConnection, key: &str) -> Result<RedisResult<Vec<String>>, Error> {
    match cmd("LRANGE").arg(key).arg(0).arg(-1).query(connection) {
        Err(error) if error.is_io_error() => Err(Error::redis(format!("reading {key}"))(error)),
        list => Ok(list),
    }
}

/// The other spellings of patterns among those of keys.
fn spellings_of(patterns: &BTreeSet<String>) -> BTreeMap<String, Vec<String>> {
    let mut spellings = BTreeMap::<_, Vec<_>>::new();
    for written in patterns {
        if let KeyPattern::Spelling(pattern) = key_pattern(written) {
            spellings.entry(pattern).or_default().push(written.clone());
        }
    }
    spellings
}

fn put_backends(text: &mut String, backends: &[String], dead: &BTreeSet<usize>, ttl: i64) {
    if backends.is_empty() {
        text.push_str("    no backends: requests get a 502\n");
    }
    for (index, url) in backends.iter().enumerate() {
        let mark = match (BackendUrl::parse(url), dead.contains(&index), u64::try_from(ttl)) {
            (Err(fault), ..) => format!("  is left out: {fault}"),
            (Ok(_), false, _) => String::new(),
            (Ok(_), true, Ok(millis)) => format!("  dead for {:.1?} more", Duration::from_millis(millis)),
            (Ok(_), true, Err(_)) => "  dead until the mark is removed".to_owned(),
        };
        let _ = writeln!(text, "    {index}  {}{mark}", printable(&redact_url(url)));
    }
}

fn put_options(text: &mut String, key: &str, connection: &mut ToolConnection) -> Result<(), Error> {
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

/// All patterns, one a line: the pattern, the identifier, the number of backends, and the fault of the pattern if any.
pub fn list(source: &Source) -> Result<String, Error> {
    let mut text = String::new();
    let target = match source {
        Source::Nothing => return Ok(text),
        Source::Redis(settings) => &settings.read,
        Source::File(path) => {
            for (pattern, Entry { items, .. }) in read_routes(path).map_err(Error::File)? {
                let _ = writeln!(text, "{pattern}  {:?}  {} backends", items[0], items.len() - 1);
            }
            return Ok(text);
        }
    };
    let connection = &mut connect(target).map_err(Error::redis(format!("connecting to {target}")))?;
    let all = patterns(connection, &target.frontend_key(""))?;
    let spellings = spellings_of(&all);
    for pattern in &all {
        let note = match key_pattern(pattern) {
            KeyPattern::AsLookedUp => String::new(),
            KeyPattern::Never(problem) => format!("  never matches: {problem}"),
            KeyPattern::Spelling(other) if all.contains(&other) => format!("  is not used: there is {other}"),
            KeyPattern::Spelling(other) => match spellings.get(&other).map(Vec::len) {
                Some(1) => format!("  serves {other}; rename it to that"),
                _ => format!("  is not used: there is another spelling of {other}"),
            },
        };
        let shown = printable(pattern);
        match cmd("LRANGE").arg(target.frontend_key(pattern)).arg(0).arg(-1).query::<Vec<String>>(connection) {
            Ok(list) => {
                let id = list.first().map_or_else(Default::default, |id| redact_identifier(id));
                let _ = writeln!(text, "{shown}  {id:?}  {} backends{note}", list.len().saturating_sub(1));
            }
            Err(error) => {
                let _ = writeln!(text, "{shown}  cannot be used: {error}{note}");
            }
        }
    }
    Ok(text)
}

/// The part of each key behind `start`, sorted.
pub(super) fn patterns(connection: &mut ToolConnection, start: &str) -> Result<BTreeSet<String>, Error> {
    let mut patterns = BTreeSet::new();
    let take = |keys: Vec<Vec<u8>>| {
        let names = keys.into_iter().filter_map(|key| String::from_utf8(key).ok());
        patterns.extend(names.filter_map(|key| key.strip_prefix(start).map(str::to_owned)));
    };
    connection.scan(start, take).map_err(Error::redis("listing keys"))?;
    Ok(patterns)
}
