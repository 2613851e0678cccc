//! `driver`: the source of routes.

use super::Overrides;
use super::old_redis;
use super::raw::{Field, Section};
use super::server::Server;
use crate::base::secret::Secret;
use crate::directory::Source;
use crate::directory::redis::{self, EXPECTED, Target, TargetFault};
use crate::net::tls::is_open_to_others;
use std::fs;
use std::path::{Path, PathBuf};

/// A larger file is not a password file.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// A driver as written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Driver {
    /// `file:PATH`.
    File(PathBuf),
    /// A URL of Redis.
    Redis(Target),
    /// `haproxy:PATH`.
    Haproxy(HaproxyFile),
}

/// A HAProxy file, or a folder of such files, served at its own listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HaproxyFile {
    /// The path.
    pub path: PathBuf,
    /// Whether it is used although keywords are lost that decide about access or routing.
    pub is_lossy: bool,
}

/// The source of the routes: a Redis on this machine by default. A relative path starts at `folder`, the
/// configuration's own. `password` applies to every Redis without one of its own. `None` only after a reported fault.
pub(super) fn read_source(
    root: &Section<'_>,
    folder: &Path,
    overrides: &Overrides,
    server: &Server,
) -> Option<(Source, Vec<HaproxyFile>)> {
    let password = overrides.redis_password.as_ref();
    let field = root.field("driver");
    let old_urls = old_redis::read_urls(root, field.is_set());
    let mut drivers = match field.items() {
        Some(items) if items.is_empty() => {
            field.refuse(expected());
            return None;
        }
        // All items are read, to find all faults at once.
        Some(items) => {
            let drivers: Vec<_> = items.iter().map(|item| read_driver(item, folder)).collect();
            drivers.into_iter().collect::<Option<Vec<_>>>()?
        }
        None if !overrides.haproxy.is_empty() && old_urls.is_none() => Vec::new(),
        None => {
            let urls = old_urls.unwrap_or_else(|| vec!["redis:".to_owned()]);
            let targets = urls.iter().map(|url| Target::parse(url).map(Driver::Redis)).collect::<Result<Vec<_>, _>>();
            match targets {
                Ok(targets) => targets,
                Err(fault) => {
                    field.report().fault(field.path(), format!("{fault} (by the old names)"), expected());
                    return None;
                }
            }
        }
    };
    let sentinel_password = overrides.sentinel_password.as_ref();
    for driver in &mut drivers {
        let Driver::Redis(target) = driver else { continue };
        if let Some(password) = password {
            target.password.get_or_insert_with(|| password.reveal().to_owned());
        }
        if let (Some(of_sentinels), Some(password)) = (target.sentinel_password_mut(), sentinel_password) {
            of_sentinels.get_or_insert_with(|| password.clone());
        }
    }
    let is_haproxy = |driver: &mut Driver| matches!(driver, Driver::Haproxy(_));
    let named = drivers.extract_if(.., is_haproxy).filter_map(|driver| match driver {
        Driver::Haproxy(file) => Some(HaproxyFile { path: folder.join(file.path), ..file }),
        _ => None,
    });
    let files: Vec<_> = named.chain(overrides.haproxy.iter().cloned()).collect();
    if drivers.is_empty() && !files.is_empty() {
        return Some((Source::Nothing, files));
    }
    read_routes(&field, &drivers, folder, server).map(|source| (source, files))
}

/// The source of the routes among these drivers.
fn read_routes(field: &Field<'_>, drivers: &[Driver], folder: &Path, server: &Server) -> Option<Source> {
    match drivers {
        [Driver::File(path)] => Some(Source::File(folder.join(path))),
        [Driver::Redis(read), ..] if drivers.iter().all(|driver| matches!(driver, Driver::Redis(_))) => {
            let is_cluster = |driver: &Driver| matches!(driver, Driver::Redis(target) if target.is_cluster());
            if drivers.iter().any(is_cluster) && drivers.iter().any(|driver| *driver != drivers[0]) {
                field.refuse("a Redis Cluster alone: it is read from and written to at its masters");
                return None;
            }
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
            field.refuse("one file, or a list of Redis alone, and beside them any files of HAProxy's");
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
        dead_ttl: server.exchange.health.dead_ttl,
        resync_hold: server.resync_hold,
        snapshot: server.snapshot.clone(),
        keeps_certificates: server.keeps_certificates,
    }))
}

fn expected() -> String {
    format!("\"file:PATH\", \"haproxy:PATH\", {EXPECTED}")
}

/// Reads a URL, or an object of `url`, `passwordFile` and `sentinelPasswordFile`.
fn read_driver(item: &Field<'_>, folder: &Path) -> Option<Driver> {
    if !item.value()?.is_object() {
        return read_url(item);
    }
    let section = item.clone().section();
    let (url, file) = (section.field("url"), section.field("passwordFile"));
    let sentinel_file = section.field("sentinelPasswordFile");
    let driver = if url.is_set() {
        read_url(&url)
    } else {
        url.refuse(expected());
        None
    };
    let lossy = section.field("lossy");
    let is_lossy = lossy.flag().unwrap_or(false);
    let path = file.is_set().then(|| file.file(folder));
    let sentinel_path = sentinel_file.is_set().then(|| sentinel_file.file(folder));
    let mut driver = driver?;
    if let Some(path) = sentinel_path {
        add_sentinel_password(&sentinel_file, &path?, &mut driver)?;
    }
    match (driver, path) {
        (Driver::Haproxy(haproxy), _) => Some(Driver::Haproxy(HaproxyFile { is_lossy, ..haproxy })),
        (driver, None) => Some(driver),
        (Driver::File(_), Some(_)) => {
            file.warn_no_effect("a file of routes has no password");
            read_url(&url)
        }
        (Driver::Redis(target), Some(path)) => add_password(&file, &path?, target),
    }
}

fn add_password(field: &Field<'_>, path: &Path, target: Target) -> Option<Driver> {
    let password = read_password(field, path, target.password.is_some())?;
    Some(Driver::Redis(Target { password: Some(password.reveal().to_owned()), ..target }))
}

fn add_sentinel_password(field: &Field<'_>, path: &Path, driver: &mut Driver) -> Option<()> {
    let of_sentinels = match driver {
        Driver::Redis(target) => target.sentinel_password_mut(),
        Driver::File(_) | Driver::Haproxy(_) => None,
    };
    let Some(of_sentinels) = of_sentinels else {
        field.warn_no_effect("this driver has no sentinels");
        return Some(());
    };
    *of_sentinels = Some(read_password(field, path, of_sentinels.is_some())?);
    Some(())
}

/// Reads the password that a field names a file of. `None` if a fault was reported.
fn read_password(field: &Field<'_>, path: &Path, is_in_url: bool) -> Option<Secret> {
    if is_in_url {
        field.lacks("a password in the URL too", "only one of the two");
        return None;
    }
    let password = read_password_file(path);
    if password.is_ok() && is_open_to_others(path) {
        field.warn_open_key(path);
    }
    password.inspect_err(|problem| field.lacks(problem, "a file of the password alone")).ok()
}

/// Reads a password from its own file; a final line break does not count. An error does not reveal the content.
pub fn read_password_file(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    let is_small = fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?;
    if !is_small.is_file() || is_small.len() > MAX_PASSWORD_BYTES {
        return Err(format!("{shown}, which is no file of up to {MAX_PASSWORD_BYTES} bytes"));
    }
    let bytes = fs::read(path).map_err(|error| format!("{shown}: {error}"))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{shown}, which is no UTF-8 text"))?;
    let password = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    match password {
        "" => Err(format!("{shown}, which is empty")),
        _ if password.contains(char::is_control) => Err(format!("{shown}, which has more than one line")),
        password => Ok(password.into()),
    }
}

/// Reports an invalid driver. The value is not shown, since any part of it may be the password.
fn read_url(item: &Field<'_>) -> Option<Driver> {
    let Some(text) = item.value().and_then(|value| value.as_str()) else {
        item.refuse(expected());
        return None;
    };
    parse(text).map_err(|fault| item.report().fault(item.path(), fault.to_string(), expected())).ok()
}

fn parse(text: &str) -> Result<Driver, TargetFault> {
    match text.split_once(':').ok_or(TargetFault::Scheme)? {
        ("file", path) => {
            // `file:///path` is the same file; `file://host/path` would name another node.
            let path = match path.strip_prefix("//") {
                Some(absolute) if absolute.starts_with('/') => absolute,
                Some(_) => return Err(TargetFault::Scheme),
                None => path,
            };
            if path.is_empty() { Err(TargetFault::Scheme) } else { Ok(Driver::File(path.into())) }
        }
        ("haproxy", "") => Err(TargetFault::Scheme),
        ("haproxy", path) => Ok(Driver::Haproxy(HaproxyFile { path: path.into(), is_lossy: false })),
        _ => Target::parse(text).map(Driver::Redis),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_read() {
        let file = |path: &str| Ok(Driver::File(path.into()));
        let table = [
            ("file:routes.json", file("routes.json")),
            ("file:/etc/sluice/routes.json", file("/etc/sluice/routes.json")),
            ("file:///etc/sluice/routes.json", file("/etc/sluice/routes.json")),
            ("file:../a b.json", file("../a b.json")),
            ("haproxy:", Err(TargetFault::Scheme)),
            (
                "haproxy:/etc/haproxy/haproxy.cfg",
                Ok(Driver::Haproxy(HaproxyFile { path: "/etc/haproxy/haproxy.cfg".into(), is_lossy: false })),
            ),
            ("file:", Err(TargetFault::Scheme)),
            ("file://node/routes.json", Err(TargetFault::Scheme)),
            ("redis:", Target::parse("redis:").map(Driver::Redis)),
            (
                "rediss://:password@host:1234/5#prefix",
                Target::parse("rediss://:password@host:1234/5#prefix").map(Driver::Redis),
            ),
            ("redis://host:port", Err(TargetFault::Host)),
            ("memcached:", Err(TargetFault::Scheme)),
            ("routes.json", Err(TargetFault::Scheme)),
            ("", Err(TargetFault::Scheme)),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_password_file_is_read_and_never_shown() {
        let folder = std::env::temp_dir().join(format!("sluice-password-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("redis.password");
        let long = vec![b'x'; 5000];
        let table: [(&[u8], Result<&str, &str>); 8] = [
            (b"se cret\n", Ok("se cret")),
            (b"secret\r\n", Ok("secret")),
            (b"secret", Ok("secret")),
            (b"\n", Err("which is empty")),
            (b"", Err("which is empty")),
            (b"two\nlines\n", Err("which has more than one line")),
            (b"\xff\xfe", Err("which is no UTF-8 text")),
            (&long, Err("which is no file of up to 4096 bytes")),
        ];
        for (content, expected) in table {
            fs::write(&path, content).expect("a file");
            let found = read_password_file(&path);
            assert_eq!(found.as_ref().map(Secret::reveal).ok(), expected.ok(), "{content:?}");
            assert!(found.err().is_none_or(|problem| expected.is_err_and(|end| problem.ends_with(end))));
        }
        fs::remove_dir_all(&folder).expect("the folder goes");
    }
}
