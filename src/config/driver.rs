//! `driver`: where the routes come from.

use super::old_redis;
use super::raw::{Field, Section};
use crate::directory::Source;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

const EXPECTED: &str = "\"file:PATH\", such as \"file:routes.json\": this version reads its routes from a file only";

/// A driver as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Driver {
    /// `file:PATH`.
    File(PathBuf),
    /// `redis:` and what may follow.
    Redis,
}

/// The source of the routes. A relative path of a file starts at `folder`, the configuration's own.
pub(super) fn read_source(root: &Section<'_>, folder: &Path) -> Option<Source> {
    let field = root.field("driver");
    let old_url = old_redis::read_urls(root, field.is_set());
    let Some(items) = field.items() else {
        let found = match old_url {
            Some(urls) => {
                let urls: Vec<_> = urls.iter().map(|url| format!("{:?}", mask_password(url))).collect();
                format!("{} (by the old names)", urls.join(" and "))
            }
            None => "nothing (which stands for \"redis:\")".into(),
        };
        field.report().fault(field.path(), found, EXPECTED);
        return None;
    };
    match items.as_slice() {
        [item] => match read_driver(item)? {
            Driver::File(path) => Some(Source::File(folder.join(path))),
            Driver::Redis => {
                refuse(item, EXPECTED);
                None
            }
        },
        items => {
            field.refuse(format!("one driver, not {}: {EXPECTED}", items.len()));
            None
        }
    }
}

fn read_driver(item: &Field<'_>) -> Option<Driver> {
    let driver = item.value().and_then(|value| value.as_str()).and_then(parse);
    if driver.is_none() {
        refuse(item, EXPECTED);
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
        ("redis" | "rediss", _) => Some(Driver::Redis),
        _ => None,
    }
}

/// Reports the driver as wrong, without showing its password.
fn refuse(item: &Field<'_>, expected: &'static str) {
    match item.value().and_then(|value| value.as_str()) {
        Some(text) => item.report().fault(item.path(), format!("{:?}", mask_password(text)), expected),
        None => item.refuse(expected),
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
            ("redis:", Some(Driver::Redis)),
            ("redis://:password@host:1234/5#prefix", Some(Driver::Redis)),
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
