//! The configuration for a view: without secrets, wherever they are written.

use super::raw::join;
use super::report::Report;
use crate::base::secret::{is_path, redact_url};
use crate::directory::redis::Target;
use serde_json::Value;

/// Replaces a secret.
const HIDDEN: &str = "***";

/// The text as written, without secrets. It uses the settings known to `report`, so it has to be called after
/// everything was read.
pub(super) fn shown(written: &Value, report: &Report) -> Value {
    show(written, "", true, report)
}

fn show(value: &Value, path: &str, is_known: bool, report: &Report) -> Value {
    match value {
        Value::Object(members) => {
            let is_section = report.is_section(path);
            let member = |(key, member): (&String, &Value)| {
                let member_path = join(path, key);
                // A misspelt setting may hold a secret.
                let is_known = is_known && is_section && report.is_known(&member_path);
                let is_hidden = is_secret(key) && !member.is_boolean() && !member.is_null();
                let member = if is_hidden { HIDDEN.into() } else { show(member, &member_path, is_known, report) };
                (key.clone(), member)
            };
            members.iter().map(member).collect()
        }
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.map(|(place, item)| show(item, &format!("{path}[{place}]"), is_known, report)).collect()
        }
        Value::String(_) | Value::Number(_) if !is_known => HIDDEN.into(),
        Value::String(text) if path == "driver" || path.starts_with("driver[") || path.starts_with("driver.") => {
            show_driver(text, path)
        }
        Value::String(text) => show_text(text),
        other => other.clone(),
    }
}

/// A valid Redis URL is shown redacted; any part of an invalid one may be the password.
fn show_driver(text: &str, path: &str) -> Value {
    if path.ends_with(".passwordFile") || path.ends_with(".sentinelPasswordFile") {
        return show_text(text);
    }
    match text.split_once(':') {
        Some(("file" | "haproxy", path)) if !path.contains('@') => show_text(text),
        _ => Target::parse(text).map_or_else(|_| HIDDEN.into(), |target| target.to_string().into()),
    }
}

fn show_text(text: &str) -> Value {
    if text.contains("://") || text.contains('@') {
        redact_url(text).into()
    } else if let Some((before, _)) = text.split_once('?') {
        format!("{before}?{HIDDEN}").into()
    } else if text.is_empty() || is_path(text) {
        text.into()
    } else {
        HIDDEN.into()
    }
}

/// Whether a setting with this name holds a secret itself: a name that ends in `File` only names a file.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let is_named = ["pass", "secret", "token"].iter().any(|word| key.contains(word));
    is_named && !key.ends_with("file")
}

#[cfg(test)]
mod tests {
    use crate::config::{Overrides, from_text};
    use serde_json::{Value, json};
    use std::path::Path;

    fn shown(written: &Value) -> Value {
        let read = from_text(&written.to_string(), Path::new("/etc/config.json"), &Overrides::default());
        read.expect("a good configuration").0.admin.written.0
    }

    #[test]
    fn secrets_are_not_shown() {
        let written = json!({
            "driver": ["redis://:geheim@10.0.0.1:6379", "redis://10.0.0.2"],
            "redisPassword": "geheim",
            "admin": {"token": "geheim", "hosts": ["edge.test"]},
            "server": {"workers": 2, "accessLog": "", "debugNetworks": ["10.0.0.0/8", "::1"]},
        });
        let expected = json!({
            "driver": ["redis://10.0.0.1:6379/0", "redis://10.0.0.2:6379/0"],
            "redisPassword": "***",
            "admin": {"token": "***", "hosts": ["edge.test"]},
            "server": {"workers": 2, "accessLog": "", "debugNetworks": ["10.0.0.0/8", "::1"]},
        });
        assert_eq!(shown(&written), expected);
    }

    #[test]
    fn no_form_of_a_driver_shows_its_password() {
        let table = [
            ("unix:/run/redis.sock?db=0&user=a&pass=geheim", "unix:/run/redis.sock?db=0"),
            ("unix:///run/redis.sock?pass=geheim", "unix:/run/redis.sock?db=0"),
            ("redis+unix:///run/redis.sock?pass=geheim&db=3#p", "unix:/run/redis.sock?db=3#p"),
            ("redis://:geheim@host:1234/5#prefix", "redis://host:1234/5#prefix"),
            ("redis://geheim:geheim@host", "redis://host:6379/0"),
            ("rediss://user:geh%2Feim@[::1]:1/", "rediss://[::1]:1/0"),
            ("redis+sentinel://:geheim@a:1,b/main/2", "redis+sentinel://a:1,b:26379/main/2"),
            ("redis+sentinel://a/main?sentinel-pass=geheim", "redis+sentinel://a:26379/main/0"),
            ("redis:", "redis://127.0.0.1:6379/0"),
            ("file:/etc/routes.json", "file:/etc/routes.json"),
            ("unix:/run/redis.sock#p", "unix:/run/redis.sock?db=0#p"),
        ];
        for (url, expected) in table {
            let written = shown(&json!({"driver": url}));
            assert_eq!(written["driver"], expected, "{url}");
            let written = shown(&json!({"driver": {"url": url}}));
            assert_eq!(written["driver"]["url"], expected, "{url} as an object");
            if !url.starts_with("file:") {
                let written = shown(&json!({"driver": [url, {"url": url}]}));
                assert_eq!(written["driver"], json!([expected, {"url": expected}]), "{url} in a list");
            }
        }
    }

    #[test]
    fn a_setting_with_a_misspelt_name_is_not_shown() {
        let written = json!({
            "drvier": "unix:/r?pass=geheim",
            "redisPasword": 4711,
            "admin": {"tokn": "geheim"},
            "server": {"redis": {"url": "geheim", "on": true}, "cache": ["geheim", ["geheim"]]},
        });
        let expected = json!({
            "drvier": "***",
            "redisPasword": "***",
            "admin": {"tokn": "***"},
            "server": {"redis": {"url": "***", "on": true}, "cache": ["***", ["***"]]},
        });
        assert_eq!(shown(&written), expected);
    }
}
