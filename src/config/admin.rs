//! `admin`: where the admin service listens, and for whom.

use super::driver::read_password_file;
use super::raw::{Field, Section};
use crate::admin::{Settings, Written};
use crate::base::secret::Secret;
use crate::net::tls::is_open_to_others;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

/// The port where only an address is set.
const DEFAULT_PORT: u16 = 9100;

/// Reads the section. Relative paths start at `folder`. The text of the configuration is added when all of it was read.
pub(super) fn read(root: &Section<'_>, folder: &Path) -> Settings {
    let field = root.field("admin");
    if let Some(Value::Bool(false)) = field.value() {
        return Settings {
            bind: None,
            token: None,
            hosts: Vec::new(),
            director_prefix: None,
            written: Written::default(),
        };
    }
    let section = field.section();
    let bind = read_bind(&section.field("bind"));
    let token = read_token(&section, folder);
    if let (Some(address), None) = (bind, &token)
        && !address.ip().is_loopback()
    {
        section.field("bind").warn_instead(
            "an address that others can reach, without a token",
            "views for all, and no actions; set admin.token",
        );
    }
    let hosts = section.field("hosts").items().unwrap_or_default();
    let hosts = hosts.iter().filter_map(Field::text).map(str::to_owned).collect();
    let director_prefix = read_prefix(&section.field("directorPrefix"));
    Settings { bind, token, hosts, director_prefix, written: Written::default() }
}

fn read_bind(field: &Field<'_>) -> Option<SocketAddr> {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT));
    let expected = "an address with a port such as \"127.0.0.1:9100\", or false";
    let bind = field.read(expected, |value| match (value, value.as_str()) {
        (Value::Bool(false), _) => Some(None),
        (_, Some(text)) => as_address(text).map(Some),
        _ => None,
    });
    bind.unwrap_or(Some(default))
}

/// The path of x0d's API.
fn read_prefix(field: &Field<'_>) -> Option<String> {
    const EXPECTED: &str = "a path such as \"/x0/director\", or false for none";
    let is_segment = |segment: &str| {
        !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    let prefix = field.read(EXPECTED, |value| match (value, value.as_str()) {
        (Value::Bool(false), _) => Some(None),
        (_, Some(text)) => {
            let path = text.strip_suffix('/').unwrap_or(text).strip_prefix('/')?;
            path.split('/').all(is_segment).then(|| Some(format!("/{path}")))
        }
        _ => None,
    });
    prefix.unwrap_or_else(|| Some("/x0/director".to_owned()))
}

fn as_address(text: &str) -> Option<SocketAddr> {
    let with_port = || text.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
    with_port().or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, DEFAULT_PORT)))
}

fn read_token(section: &Section<'_>, folder: &Path) -> Option<Secret> {
    let (token, file) = (section.field("token"), section.field("tokenFile"));
    if token.is_set() && file.is_set() {
        file.lacks("a token in admin.token too", "only one of the two");
    }
    if !file.is_set() {
        return token.secret().map(Into::into);
    }
    let path = file.file(folder)?;
    match read_password_file(&path) {
        Ok(secret) => {
            if is_open_to_others(&path) {
                file.warn_open_key(&path);
            }
            Some(secret)
        }
        Err(problem) => {
            file.lacks(&problem, "a file of the token alone");
            None
        }
    }
}
