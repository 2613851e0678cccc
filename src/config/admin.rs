//! `admin`: the admin service.

use super::driver::read_password_file;
use super::raw::{Field, Section};
use crate::admin::{Bind, DEFAULT_SOCKET_MODE, Settings, Written};
use crate::base::secret::Secret;
use crate::net::tls::is_open_to_others;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

/// The port if only an address is set.
const DEFAULT_PORT: u16 = 9100;

/// The setting of the permissions.
const SOCKET_MODE: &str = "socketMode";

/// Reads the section. Relative paths start at `folder`. The text of the configuration is added after everything was
/// read.
pub(super) fn read(root: &Section<'_>, folder: &Path) -> Settings {
    let field = root.field("admin");
    if let Some(Value::Bool(false)) = field.value() {
        return Settings::off();
    }
    let section = field.section();
    let bind = read_bind(&section.field("bind"));
    let token = read_token(&section, folder);
    if let (Some(address), None) = (&bind, &token)
        && !address.is_local()
    {
        section.field("bind").warn_instead(
            "an address that others can reach, without a token",
            "views for all, and no actions; set admin.token",
        );
    }
    let (mode, owner) = (section.field(SOCKET_MODE), section.field("socketOwner"));
    if !matches!(bind, Some(Bind::Unix(_))) {
        [&mode, &owner].iter().for_each(|field| field.warn_no_effect("admin.bind is no socket of the file system"));
    }
    let hosts = section.field("hosts").items().unwrap_or_default();
    let hosts = hosts.iter().filter_map(Field::text).map(str::to_owned).collect();
    Settings {
        bind,
        socket_mode: mode
            .read("permissions in octal digits, such as \"0660\"", |value| as_mode(value.as_str()?))
            .unwrap_or(DEFAULT_SOCKET_MODE),
        socket_owner: owner
            .read("\"USER\", \"USER:GROUP\" or \":GROUP\"", |value| value.as_str().filter(|text| is_owner(text)))
            .map(str::to_owned),
        token,
        hosts,
        director_prefix: read_prefix(&section.field("directorPrefix")),
        written: Written::default(),
    }
}

fn read_bind(field: &Field<'_>) -> Option<Bind> {
    let default = Bind::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)));
    let expected = "an address with a port such as \"127.0.0.1:9100\", \"unix:/PATH\", or false";
    let bind = field.read(expected, |value| match (value, value.as_str()) {
        (Value::Bool(false), _) => Some(None),
        (_, Some(text)) => as_bind(text).map(Some),
        _ => None,
    });
    bind.unwrap_or(Some(default))
}

fn as_bind(text: &str) -> Option<Bind> {
    let alone = || text.parse::<IpAddr>().ok().map(|ip| Bind::Address(SocketAddr::new(ip, DEFAULT_PORT)));
    text.parse().ok().or_else(alone)
}

/// Octal digits, as in chmod(1).
fn as_mode(text: &str) -> Option<u32> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777)
}

fn is_owner(text: &str) -> bool {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let is_nobody = user.is_empty() && group.is_empty();
    !is_nobody && !group.contains(':')
}

/// Reads the path of x0d's API.
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

#[cfg(test)]
mod tests {
    use super::super::tests::with;
    use super::super::{Overrides, from_text};
    use super::*;
    use serde_json::json;

    fn read(admin: Value) -> Result<(Settings, Vec<String>), String> {
        let text = with(&json!({ "admin": admin })).to_string();
        match from_text(&text, Path::new("a.json"), &Overrides::default()) {
            Ok((settings, warnings)) => Ok((settings.admin, warnings.iter().map(ToString::to_string).collect())),
            Err(failure) => Err(failure.to_string()),
        }
    }

    #[test]
    fn a_socket_has_its_mode_and_its_owner() {
        let admin = json!({"bind": "unix:/run/a.sock", "socketMode": "600", "socketOwner": "web:ops"});
        let (settings, warnings) = read(admin).expect("a good one");
        assert_eq!(settings.bind, Some(Bind::Unix("/run/a.sock".into())));
        assert_eq!((settings.socket_mode, settings.socket_owner.as_deref()), (0o600, Some("web:ops")));
        assert_eq!(warnings, [""; 0]);
        let (settings, _) = read(json!({"bind": "10.0.0.1"})).expect("a good one");
        assert_eq!(settings.bind, Some(Bind::Address(SocketAddr::from(([10, 0, 0, 1], DEFAULT_PORT)))));
        assert_eq!(settings.socket_mode, DEFAULT_SOCKET_MODE);
        let (_, warnings) = read(json!({"socketMode": "0600"})).expect("a good one");
        assert_eq!(warnings, ["admin.socketMode: has no effect: admin.bind is no socket of the file system"]);
    }

    #[test]
    fn what_is_no_socket_is_refused() {
        for (admin, part) in [
            (
                json!({"bind": "unix:admin.sock"}),
                "admin.bind: found \"unix:admin.sock\", expected an address with a port",
            ),
            (
                json!({"bind": "unix:/a", "socketMode": "rw"}),
                "admin.socketMode: found \"rw\", expected permissions in octal",
            ),
            (json!({"bind": "unix:/a", "socketMode": "7777"}), "admin.socketMode: found \"7777\""),
            (json!({"bind": "unix:/a", "socketMode": 432}), "admin.socketMode: found 432"),
            (json!({"bind": "unix:/a", "socketOwner": ":"}), "admin.socketOwner: found \":\", expected \"USER\""),
            (json!({"bind": "unix:/a", "socketOwner": "a:b:c"}), "admin.socketOwner: found \"a:b:c\""),
        ] {
            let problem = read(admin).expect_err(part);
            assert!(problem.contains(part), "no {part:?} in {problem}");
        }
    }
}
