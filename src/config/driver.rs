//! `driver`: where the routes come from.

use super::old_redis;
use super::raw::{Field, Section};
use super::server::Server;
use crate::directory::Source;
use crate::directory::redis::{self, EXPECTED, Target};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// A driver as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Driver {
    /// `file:PATH`.
    File(PathBuf),
    /// A URL of Redis.
    Redis(Target),
}

/// The source of the routes: a Redis here, unless something else is said. A relative path of a file starts at
/// `folder`, the configuration's own. `None` only where a fault was reported.
pub(super) fn read_source(root: &Section<'_>, folder: &Path, server: &Server) -> Option<Source> {
    let field = root.field("driver");
    let old_urls = old_redis::read_urls(root, field.is_set());
    let drivers = match field.items() {
        Some(items) if items.is_empty() => {
            field.refuse(expected());
            return None;
        }
        Some(items) => items.iter().map(read_driver).collect::<Option<Vec<_>>>()?,
        None => {
            let urls = old_urls.unwrap_or_else(|| vec!["redis:".to_owned()]);
            let targets = urls.iter().map(|url| Target::parse(url).map(Driver::Redis)).collect::<Option<Vec<_>>>();
            let Some(targets) = targets else {
                let shown: Vec<_> = urls.iter().map(|url| mask_password(url)).collect();
                field.report().fault(field.path(), format!("{} (by the old names)", shown.join(" and ")), expected());
                return None;
            };
            targets
        }
    };
    match drivers.as_slice() {
        [Driver::File(path)] => Some(Source::File(folder.join(path))),
        [Driver::Redis(read), ..] if drivers.iter().all(|driver| matches!(driver, Driver::Redis(_))) => {
            let write = match drivers.last() {
                Some(Driver::Redis(write)) => write.clone(),
                _ => read.clone(),
            };
            if drivers.len() > 2 {
                field.warn_no_effect("of a list, the first is read from and the last is written to; those between");
            }
            Some(redis_source(read.clone(), write, server))
        }
        _ => {
            field.refuse("one file, or a list of Redis alone");
            None
        }
    }
}

fn redis_source(read: Target, write: Target, server: &Server) -> Source {
    Source::Redis(Box::new(redis::Settings {
        read,
        write,
        ttl: server.route.ttl,
        unknown_rate: server.unknown_rate,
        snapshot: server.snapshot.clone(),
        keeps_certificates: server.keeps_certificates,
    }))
}

fn expected() -> String {
    format!("\"file:PATH\", {EXPECTED}")
}

fn read_driver(item: &Field<'_>) -> Option<Driver> {
    let driver = item.value().and_then(|value| value.as_str()).and_then(parse);
    if driver.is_none() {
        refuse(item, &expected());
    }
    driver
}

fn parse(text: &str) -> Option<Driver> {
    match text.split_once(':')? {
        ("file", path) => {
            // `file:///path` is the same file; `file://host/path` would be another node's.
            let path = match path.strip_prefix("//") {
                Some(absolute) if absolute.starts_with('/') => absolute,
                Some(_) => return None,
                None => path,
            };
            (!path.is_empty()).then(|| Driver::File(path.into()))
        }
        _ => Target::parse(text).map(Driver::Redis),
    }
}

/// Reports the driver as wrong, without showing its password.
fn refuse(item: &Field<'_>, expected: &str) {
    match item.value().and_then(|value| value.as_str()) {
        Some(text) => item.report().fault(item.path(), format!("{:?}", mask_password(text)), expected.to_owned()),
        None => item.refuse(expected.to_owned()),
    }
}

/// The URL without its password, and without its user's name: without what stands before the last `@`.
fn mask_password(url: &str) -> Cow<'_, str> {
    let start = url.find("//").map(|slashes| slashes + 2).or_else(|| url.find(':').map(|colon| colon + 1));
    match (start.unwrap_or(0), url.rfind('@')) {
        (start, Some(end)) if start < end => Cow::Owned(format!("{}:***{}", &url[..start], &url[end..])),
        _ => Cow::Borrowed(url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_read() {
        let file = |path: &str| Some(Driver::File(path.into()));
        let table = [
            ("file:routes.json", file("routes.json")),
            ("file:/etc/sluice/routes.json", file("/etc/sluice/routes.json")),
            ("file:///etc/sluice/routes.json", file("/etc/sluice/routes.json")),
            ("file:../a b.json", file("../a b.json")),
            ("file:", None),
            ("file://node/routes.json", None),
            ("redis:", Target::parse("redis:").map(Driver::Redis)),
            (
                "rediss://:password@host:1234/5#prefix",
                Target::parse("rediss://:password@host:1234/5#prefix").map(Driver::Redis),
            ),
            ("redis://host:port", None),
            ("memcached:", None),
            ("routes.json", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let table = [
            ("redis:", "redis:"),
            ("redis://host:1/2", "redis://host:1/2"),
            ("redis://:secret@host:1/2", "redis://:***@host:1/2"),
            ("redis://user:sec//r@et@host", "redis://:***@host"),
            ("redis::secret@host", "redis::***@host"),
            ("user:secret@host", "user::***@host"),
            ("secret@host", ":***@host"),
        ];
        for (text, expected) in table {
            assert_eq!(mask_password(text), expected);
        }
    }
}
