//! Redis under the names of older versions of Hipache: `redisHost` and related ones, and the oldest
//! `redis.{host,port}`.

use super::raw::{Field, Section};
use serde_json::Value;

/// The URLs for the old names, the one to read from first. `None` if there are no old names, or if `driver` replaces
/// them.
pub(super) fn read_urls(root: &Section<'_>, driver_is_set: bool) -> Option<Vec<String>> {
    let oldest = root.old_field("redis").section();
    let oldest = [oldest.old_field("host"), oldest.old_field("port")];
    let node = Node {
        host: root.old_field("redisHost"),
        port: root.old_field("redisPort"),
        password: root.old_field("redisPassword"),
    };
    let master = Node {
        host: root.old_field("redisMasterHost"),
        port: root.old_field("redisMasterPort"),
        password: root.old_field("redisMasterPassword"),
    };
    let database = root.old_field("redisDatabase");
    for field in node.fields().into_iter().chain(master.fields()).chain(&oldest).chain([&database]) {
        field.warn_old("driver", driver_is_set);
    }
    let [oldest_host, oldest_port] = oldest;
    let node = Node { host: first_set(node.host, oldest_host), port: first_set(node.port, oldest_port), ..node };
    let has_master = master.is_set();
    if driver_is_set || !(node.is_set() || has_master || database.is_set()) {
        return None;
    }
    let database = database.whole(0..=u64::from(u32::MAX)).unwrap_or(0);
    let mut urls = vec![node.url(database)];
    if has_master {
        urls.push(master.url(database));
    }
    Some(urls)
}

fn first_set<'a>(newer: Field<'a>, older: Field<'a>) -> Field<'a> {
    if newer.is_set() { newer } else { older }
}

/// A Redis server.
struct Node<'a> {
    host: Field<'a>,
    port: Field<'a>,
    password: Field<'a>,
}

impl<'a> Node<'a> {
    fn fields(&self) -> [&Field<'a>; 3] {
        [&self.host, &self.port, &self.password]
    }

    fn is_set(&self) -> bool {
        self.fields().into_iter().any(Field::is_set)
    }

    fn url(&self, database: u64) -> String {
        let host = self.host.text().unwrap_or("127.0.0.1");
        let host = if host.contains(':') { format!("[{host}]") } else { host.into() };
        let port = self.port.whole(1..=u64::from(u16::MAX)).unwrap_or(6379);
        match read_password(&self.password) {
            Some(password) => format!("redis://:{}@{host}:{port}/{database}", percent_encode(password)),
            None => format!("redis://{host}:{port}/{database}"),
        }
    }
}

fn read_password<'a>(field: &Field<'a>) -> Option<&'a str> {
    match field.value()? {
        Value::String(password) => Some(password).filter(|password| !password.is_empty()).map(String::as_str),
        _ => {
            // The value is not shown: it may be the password without its quotes.
            field.report().fault(field.path(), "no text", "a text");
            None
        }
    }
}

/// Encodes characters that would end the password in a URL.
fn percent_encode(password: &str) -> String {
    let mut encoded = String::with_capacity(password.len());
    for byte in password.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
