//! Reports of writes: which keys a server reports, and what they mean.

use super::connect;
use super::connection::Connection;
use super::route_state::ChangedKey;
use super::target::Target;
use super::{CHECKER_KEY, HEALTH_START};
use redis::{PushKind, RedisResult, Value, cmd};

/// Makes a server report all keys that matter on this connection (client tracking in broadcast mode).
pub(super) fn track(connection: &mut Connection, target: &Target) -> RedisResult<()> {
    let prefix = &target.prefix;
    let mut command = cmd("CLIENT");
    command.arg("TRACKING").arg("ON").arg("BCAST");
    for start in ["frontend:", "options:", "dead:"] {
        command.arg("PREFIX").arg(format!("{prefix}{start}"));
    }
    for start in ["tls:", HEALTH_START, CHECKER_KEY] {
        command.arg("PREFIX").arg(start);
    }
    connect::ask(connection, &command).map(drop)
}

/// The changed keys that a push reports.
pub(super) fn changed_keys(target: &Target, kind: &PushKind, data: &[Value]) -> Vec<ChangedKey> {
    match (kind, data) {
        (PushKind::Invalidate, [Value::Array(keys)]) => keys.iter().filter_map(|key| changed(target, key)).collect(),
        // The database was emptied.
        (PushKind::Invalidate, _) => vec![ChangedKey::All],
        (PushKind::PMessage, [_, channel, ..]) => changed_by_channel(target, channel).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn changed(target: &Target, key: &Value) -> Option<ChangedKey> {
    let Value::BulkString(key) = key else { return None };
    let key = std::str::from_utf8(key).ok()?;
    if key == CHECKER_KEY {
        return Some(ChangedKey::Checker);
    }
    if let Some(host) = key.strip_prefix(HEALTH_START) {
        return Some(ChangedKey::Options(host.into()));
    }
    if let Some(pattern) = key.strip_prefix("tls:") {
        return Some(ChangedKey::Certificate(pattern.into()));
    }
    let key = key.strip_prefix(&*target.prefix)?;
    match key.split_once(':')? {
        ("frontend", pattern) => Some(ChangedKey::Route(pattern.into())),
        ("options", pattern) => Some(ChangedKey::Options(pattern.into())),
        ("dead", host) => Some(ChangedKey::Dead(host.into())),
        _ => None,
    }
}

fn changed_by_channel(target: &Target, channel: &Value) -> Option<ChangedKey> {
    let Value::BulkString(channel) = channel else { return None };
    let key = channel.iter().position(|byte| *byte == b':').map(|colon| channel[colon + 1..].to_vec())?;
    changed(target, &Value::BulkString(key))
}
