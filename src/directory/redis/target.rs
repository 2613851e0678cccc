//! The URL of a Redis: location, account, database and prefix.

use super::address::Address;
use crate::base::secret::Secret;
use percent_encoding::percent_decode_str;
use std::fmt;
use std::path::PathBuf;

const DEFAULT_PORT: u16 = 6379;
/// The default port of a sentinel.
const SENTINEL_PORT: u16 = 26_379;

/// A Redis and how to access it.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Where it is.
    pub place: Location,
    /// The ACL user; `None` for the default one.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The number of the database.
    pub database: u32,
    /// The prefix of `frontend:`, `options:` and `dead:` in the names of keys.
    pub prefix: String,
}

/// The location of a Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A host and port.
    Tcp {
        /// A name or address, without brackets.
        host: String,
        /// The port.
        port: u16,
        /// The connection uses TLS, and the certificate must be valid.
        tls: bool,
    },
    /// A UNIX socket.
    Unix(PathBuf),
    /// A Redis Cluster.
    Cluster {
        /// Host and port of some of its servers, by which the others are found.
        seeds: Vec<(String, u16)>,
        /// Connections use TLS, and the certificates must be valid.
        tls: bool,
    },
    /// The master that these sentinels name.
    Sentinel {
        /// Host and port of each.
        sentinels: Vec<(String, u16)>,
        /// The name of the set of servers.
        service: String,
        /// The account at the sentinels.
        login: SentinelLogin,
    },
}

/// The account at the sentinels, which is not that of the servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentinelLogin {
    /// The ACL user; `None` for the default one.
    pub user: Option<String>,
    /// The password; `None` if none is needed.
    pub password: Option<Secret>,
}

/// A description of the accepted URLs.
pub const EXPECTED: &str = "\"redis:\", \"redis://user:password@host:port/database#prefix\" (each part may be left out, \
    rediss: is encrypted), \"unix:/path\", \"redis+sentinel://host:port,host:port/service/database\" or \
    \"redis+cluster://host:port,host:port\"";

/// Why a URL is not valid for Redis. It names only the part, since any part may contain the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetFault {
    /// The scheme is not one of Redis.
    Scheme,
    /// The database of a Redis Cluster, which has only number 0.
    ClusterDatabase,
    /// The host or the port of a server or sentinel.
    Host,
    /// The number of the database.
    Database,
    /// The path of a UNIX socket.
    Path,
    /// The part behind a `?`.
    Query,
    /// The name of the service that the sentinels monitor.
    Service,
    /// An escape of `%` and two digits.
    Escape,
    /// There is an `@` behind the host: the password contains characters that end it.
    At,
}

impl fmt::Display for TargetFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "a text without a scheme of Redis",
            Self::ClusterDatabase => "a URL of a Redis Cluster with a database: a cluster has only database 0",
            Self::Host => "a URL of Redis whose host or port is no good",
            Self::Database => "a URL of Redis whose database is no number",
            Self::Path => "a URL of Redis whose path of a socket is not absolute",
            Self::Query => {
                "a URL of Redis whose query has other parts than db, user and pass, or sentinel-user and sentinel-pass"
            }
            Self::Service => "a URL of Redis without the name of a service",
            Self::Escape => "a URL of Redis with an escape that is no UTF-8",
            Self::At => {
                "a URL of Redis with an @ behind its host (in a password, write %40 for @, %2F for /, %23 for #)"
            }
        })
    }
}

impl Target {
    /// Reads a URL.
    pub fn parse(url: &str) -> Result<Self, TargetFault> {
        let (scheme, rest) = url.split_once(':').ok_or(TargetFault::Scheme)?;
        let (rest, prefix) = rest.split_once('#').unwrap_or((rest, ""));
        let target = match scheme {
            "redis" | "rediss" => Self::parse_tcp(rest, scheme == "rediss"),
            "unix" | "redis+unix" => Self::parse_unix(rest),
            "redis+sentinel" => Self::parse_sentinel(rest),
            "redis+cluster" | "rediss+cluster" => Self::parse_cluster(rest, scheme == "rediss+cluster"),
            _ => return Err(TargetFault::Scheme),
        };
        // A password with a literal `/` or `#` ends early, and the rest would be shown as another part.
        let is_cut = |shown: &str| shown.contains('@');
        match target.map(|target| Self { prefix: prefix.to_owned(), ..target }) {
            Ok(target) if is_cut(&target.to_string()) => Err(TargetFault::At),
            Err(_) if is_cut(prefix) => Err(TargetFault::At),
            // A query continues in the apparent prefix: a literal `#` has ended the password.
            Ok(_) if prefix.contains('&') => Err(TargetFault::Query),
            result => result,
        }
    }

    fn parse_tcp(rest: &str, tls: bool) -> Result<Self, TargetFault> {
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
            None => ("", rest),
        };
        if path.contains('@') {
            return Err(TargetFault::At);
        }
        let (user, password, place) = split_user(authority)?;
        let (host, port) =
            if place.is_empty() { ("127.0.0.1".to_owned(), DEFAULT_PORT) } else { host_and_port(place, DEFAULT_PORT)? };
        let place = Location::Tcp { host, port, tls };
        Ok(Self { place, user, password, database: database(path)?, prefix: String::new() })
    }

    fn parse_unix(rest: &str) -> Result<Self, TargetFault> {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') {
            return Err(TargetFault::Path);
        }
        let path = PathBuf::from(decode(path)?);
        let mut target =
            Self { place: Location::Unix(path), user: None, password: None, database: 0, prefix: String::new() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').ok_or(TargetFault::Query)? {
                ("db", value) => target.database = database(value)?,
                ("user", value) => target.user = Some(decode(value)?),
                ("pass", value) => target.password = Some(decode(value)?),
                _ => return Err(TargetFault::Query),
            }
        }
        Ok(target)
    }

    fn parse_sentinel(rest: &str) -> Result<Self, TargetFault> {
        let (authority, path) =
            rest.strip_prefix("//").and_then(|rest| rest.split_once('/')).ok_or(TargetFault::Service)?;
        if path.contains('@') {
            return Err(TargetFault::At);
        }
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let (service, path) = path.split_once('/').unwrap_or((path, ""));
        let mut login = SentinelLogin::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').ok_or(TargetFault::Query)? {
                ("sentinel-user", value) => login.user = Some(decode(value)?),
                ("sentinel-pass", value) => login.password = Some(decode(value)?.as_str().into()),
                _ => return Err(TargetFault::Query),
            }
        }
        let (user, password, places) = split_user(authority)?;
        let sentinels: Result<Vec<_>, _> = places.split(',').map(|place| host_and_port(place, SENTINEL_PORT)).collect();
        let service = Some(decode(service)?).filter(|service| !service.is_empty()).ok_or(TargetFault::Service)?;
        let place = Location::Sentinel { sentinels: sentinels?, service, login };
        Ok(Self { place, user, password, database: database(path)?, prefix: String::new() })
    }

    fn parse_cluster(rest: &str, tls: bool) -> Result<Self, TargetFault> {
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
            None => ("", rest),
        };
        if path.contains('@') {
            return Err(TargetFault::At);
        }
        if !matches!(path, "" | "0") {
            return Err(TargetFault::ClusterDatabase);
        }
        let (user, password, places) = split_user(authority)?;
        if places.is_empty() {
            return Err(TargetFault::Host);
        }
        let seeds: Result<Vec<_>, _> = places.split(',').map(|place| host_and_port(place, DEFAULT_PORT)).collect();
        let place = Location::Cluster { seeds: seeds?, tls };
        Ok(Self { place, user, password, database: 0, prefix: String::new() })
    }

    /// Whether it is a Redis Cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(self.place, Location::Cluster { .. })
    }

    /// Whether connections use TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self.place, Location::Tcp { tls: true, .. } | Location::Cluster { tls: true, .. })
    }

    /// The servers of a cluster that the URL names.
    pub(super) fn seeds(&self) -> Vec<Address> {
        let Location::Cluster { seeds, .. } = &self.place else { return Vec::new() };
        seeds.iter().map(|(host, port)| Address { host: host.as_str().into(), port: *port }).collect()
    }

    /// The password of the sentinels, to be set; `None` for a Redis without sentinels.
    pub fn sentinel_password_mut(&mut self) -> Option<&mut Option<Secret>> {
        match &mut self.place {
            Location::Sentinel { login, .. } => Some(&mut login.password),
            Location::Tcp { .. } | Location::Unix(_) | Location::Cluster { .. } => None,
        }
    }

    /// The key of a pattern's list.
    pub fn frontend_key(&self, pattern: &str) -> String {
        format!("{}frontend:{pattern}", self.prefix)
    }

    /// The key of the options of a pattern's frontend.
    pub fn options_key(&self, pattern: &str) -> String {
        format!("{}options:{pattern}", self.prefix)
    }

    /// The key of a host's dead marks.
    pub fn dead_key(&self, host: &str) -> String {
        format!("{}dead:{host}", self.prefix)
    }
}

impl fmt::Display for Target {
    /// Leaves out user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Location::Tcp { host, port, tls } => {
                let scheme = if *tls { "rediss" } else { "redis" };
                let open = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "{scheme}://{}{host}{}:{port}/{}", open.0, open.1, self.database)?;
            }
            Location::Unix(path) => write!(f, "unix:{}?db={}", path.display(), self.database)?,
            Location::Cluster { tls, .. } => {
                let scheme = if *tls { "rediss" } else { "redis" };
                let seeds: Vec<_> = self.seeds().iter().map(Address::to_string).collect();
                write!(f, "{scheme}+cluster://{}", seeds.join(","))?;
            }
            Location::Sentinel { sentinels, service, .. } => {
                let sentinels: Vec<_> = sentinels.iter().map(|(host, port)| format!("{host}:{port}")).collect();
                write!(f, "redis+sentinel://{}/{service}/{}", sentinels.join(","), self.database)?;
            }
        }
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "#{}", self.prefix) }
    }
}

impl fmt::Debug for Target {
    /// Leaves out the password, since settings are logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

/// Splits `user:password@place`; without an `@` the authority is the place alone.
fn split_user(authority: &str) -> Result<(Option<String>, Option<String>, &str), TargetFault> {
    let Some((info, place)) = authority.rsplit_once('@') else { return Ok((None, None, authority)) };
    let (user, password) = info.split_once(':').unwrap_or((info, ""));
    let some = |text: &str| decode(text).map(|text| Some(text).filter(|text| !text.is_empty()));
    Ok((some(user)?, some(password)?, place))
}

fn host_and_port(place: &str, default: u16) -> Result<(String, u16), TargetFault> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(TargetFault::Host)?;
            let port = port.strip_prefix(':').or_else(|| port.is_empty().then_some(""));
            (host, port.ok_or(TargetFault::Host)?)
        }
        None => place.split_once(':').unwrap_or((place, "")),
    };
    let host = decode(host)?;
    let port =
        if port.is_empty() { default } else { port.parse().ok().filter(|port| *port > 0).ok_or(TargetFault::Host)? };
    // An empty host is valid only without a port, which the caller handles.
    let host = if host.is_empty() { "127.0.0.1".to_owned() } else { host };
    if host.contains([' ', '/', '?']) { Err(TargetFault::Host) } else { Ok((host, port)) }
}

fn database(path: &str) -> Result<u32, TargetFault> {
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.is_empty() { Ok(0) } else { path.parse().map_err(|_| TargetFault::Database) }
}

fn decode(text: &str) -> Result<String, TargetFault> {
    percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).map_err(|_| TargetFault::Escape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown_without_secrets() {
        let table = [
            ("redis:", Ok("redis://127.0.0.1:6379/0")),
            ("redis://", Ok("redis://127.0.0.1:6379/0")),
            ("redis:#staging:", Ok("redis://127.0.0.1:6379/0#staging:")),
            ("redis:///5", Ok("redis://127.0.0.1:6379/5")),
            ("redis://:6380", Ok("redis://127.0.0.1:6380/0")),
            ("redis://:secret@host:1234/5#prefix", Ok("redis://host:1234/5#prefix")),
            ("redis://user:sec%2Fret@host", Ok("redis://host:6379/0")),
            ("rediss://[::1]:1/", Ok("rediss://[::1]:1/0")),
            ("unix:/run/redis.sock", Ok("unix:/run/redis.sock?db=0")),
            ("redis+unix:///run/redis.sock?db=3&pass=x#p", Ok("unix:/run/redis.sock?db=3#p")),
            ("redis+sentinel://a:1,b/main/2", Ok("redis+sentinel://a:1,b:26379/main/2")),
            ("redis+sentinel://:x@a/main?sentinel-pass=secret#p", Ok("redis+sentinel://a:26379/main/0#p")),
            ("redis+sentinel://a/main/1?sentinel-user=s&sentinel-pass=secret", Ok("redis+sentinel://a:26379/main/1")),
            ("redis+sentinel://a/main?pass=secret", Err(TargetFault::Query)),
            ("redis+sentinel://a/main?sentinel-pass=se@cret", Err(TargetFault::At)),
            ("redis+sentinel://a/main?sentinel-pass=a#b&sentinel-user=c", Err(TargetFault::Query)),
            ("redis+sentinel://a:1", Err(TargetFault::Service)),
            ("redis+sentinel://a:1/", Err(TargetFault::Service)),
            ("redis://host:0", Err(TargetFault::Host)),
            ("redis://host:x", Err(TargetFault::Host)),
            ("redis://host/x", Err(TargetFault::Database)),
            ("redis://ho st", Err(TargetFault::Host)),
            ("unix:relative", Err(TargetFault::Path)),
            ("unix:/run/redis.sock?what=1", Err(TargetFault::Query)),
            ("unix:/r?pass=a#b&db=1", Err(TargetFault::Query)),
            ("redis://%ff@host", Err(TargetFault::Escape)),
            ("redis://:12#34@host", Err(TargetFault::At)),
            ("redis://:se#cret@host", Err(TargetFault::At)),
            ("redis://:12/34@host", Err(TargetFault::At)),
            ("redis+sentinel://:12/w@a:1/main", Err(TargetFault::At)),
            ("file:routes.json", Err(TargetFault::Scheme)),
            ("memcached:", Err(TargetFault::Scheme)),
            ("redis+cluster://:secret@a:7000,b:7001", Ok("redis+cluster://a:7000,b:7001")),
            ("rediss+cluster://user:secret@a,[::1]:7001/0#p:", Ok("rediss+cluster://a:6379,[::1]:7001#p:")),
            ("redis+cluster://a:7000/1", Err(TargetFault::ClusterDatabase)),
            ("redis+cluster:", Err(TargetFault::Host)),
            ("redis+cluster://", Err(TargetFault::Host)),
            ("redis+cluster://a:x", Err(TargetFault::Host)),
            ("redis+cluster://:12/34@a", Err(TargetFault::At)),
            ("redis+cluster://:se#cret@a", Err(TargetFault::At)),
            ("redis", Err(TargetFault::Scheme)),
        ];
        for (url, expected) in table {
            let found = Target::parse(url).map(|target| format!("{target:?}"));
            assert_eq!(found, expected.map(|text: &str| format!("Target({text})")), "{url}");
        }
        let target = Target::parse("redis://us%40er:sec%2Fr%23et@host#p").expect("a good URL");
        assert_eq!((target.user.as_deref(), target.password.as_deref()), (Some("us@er"), Some("sec/r#et")));
        assert_eq!(target.frontend_key("*.a"), "pfrontend:*.a");
        assert_eq!(target.options_key("*.a"), "poptions:*.a");
        assert_eq!(target.dead_key("a"), "pdead:a");
    }
}
