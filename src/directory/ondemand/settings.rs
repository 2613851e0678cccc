//! x0d's settings of a cluster: names, values, defaults, and the option of this program that each one sets.
//!
//! Names and defaults are those of x0d 0.10. Times are in seconds, in arguments, files and views.

use crate::cluster::{MAX_COUNT, MAX_TIME, Scheduler, read_whole};
use serde_json::Value as Json;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// The longest text.
const MAX_TEXT: usize = 1024;

/// The section of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Director,
    Cache,
}

/// A kind of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Flag,
    Count,
    Time,
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    Scheduler,
}

/// A setting.
pub(super) struct Key {
    /// The name of the argument.
    pub(super) name: &'static str,
    /// The name in a view.
    pub(super) view: &'static str,
    pub(super) section: Section,
    kind: Kind,
    default: &'static str,
    /// The option that it sets; empty for none.
    option: &'static str,
}

impl Key {
    /// The name in a file.
    pub(super) fn in_file(&self) -> &'static str {
        match self.section {
            Section::Director => self.name,
            Section::Cache => self.view,
        }
    }
}

const fn key(name: &'static str, kind: Kind, default: &'static str, option: &'static str) -> Key {
    Key { name, view: name, section: Section::Director, kind, default, option }
}

const fn cache(name: &'static str, view: &'static str, kind: Kind, default: &'static str, option: &'static str) -> Key {
    Key { name, view, section: Section::Cache, kind, default, option }
}

const FCGI_SCRIPT: &str = "health-check-fcgi-script-filename";

/// Every setting, in the order of x0d's views.
pub(super) const KEYS: &[Key] = &[
    key("enabled", Kind::Flag, "true", ""),
    key("queue-limit", Kind::Count, "128", "queueLimit"),
    key("queue-timeout", Kind::Time, "60", "queueTimeout"),
    key("on-client-abort", Kind::Word(&["close", "ignore", "notify"]), "close", "onClientAbort"),
    key("retry-after", Kind::Time, "10", "retryAfter"),
    key("max-retry-count", Kind::Count, "6", "retries"),
    key("sticky-offline-mode", Kind::Flag, "false", "health.stickyOffline"),
    key("allow-x-sendfile", Kind::Flag, "false", ""),
    key("enqueue-on-unavailable", Kind::Flag, "false", "enqueueOnUnavailable"),
    key("connect-timeout", Kind::Time, "10", "connectTimeout"),
    key("read-timeout", Kind::Time, "120", "responseTimeout"),
    key("write-timeout", Kind::Time, "10", ""),
    key("health-check-host-header", Kind::Text, "backend-healthcheck", "health.host"),
    key("health-check-request-path", Kind::Text, "/", "health.path"),
    Key {
        name: FCGI_SCRIPT,
        view: "health-check-fcgi-script-name",
        section: Section::Director,
        kind: Kind::Text,
        default: "",
        option: "",
    },
    key("scheduler", Kind::Scheduler, "rr", "scheduler"),
    cache("cache-enabled", "enabled", Kind::Flag, "false", "cache.enabled"),
    cache("cache-deliver-active", "deliver-active", Kind::Flag, "true", "cache.deliverActive"),
    cache("cache-deliver-shadow", "deliver-shadow", Kind::Flag, "true", "cache.deliverShadow"),
    cache("cache-default-ttl", "default-ttl", Kind::Time, "20", "cache.defaultTtl"),
    cache("cache-default-shadow-ttl", "default-shadow-ttl", Kind::Time, "0", "cache.defaultShadowTtl"),
];

/// A parsed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Flag(bool),
    Count(u32),
    Time(Duration),
    Text(Box<str>),
}

impl fmt::Display for Value {
    /// The form in a file and in arguments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => flag.fmt(f),
            Self::Count(count) => count.fmt(f),
            Self::Time(time) => time.as_secs_f64().fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Value {
    pub(super) fn json(&self) -> Json {
        match self {
            Self::Flag(flag) => (*flag).into(),
            Self::Count(count) => (*count).into(),
            Self::Time(time) => seconds(*time),
            Self::Text(text) => (**text).into(),
        }
    }
}

/// A time as a number of seconds, as an integer if possible.
pub(super) fn seconds(time: Duration) -> Json {
    if time.subsec_nanos() == 0 { time.as_secs().into() } else { time.as_secs_f64().into() }
}

/// The values of all settings. Clusters with the same ones share them until they are changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings(Arc<Vec<Value>>);

static DEFAULTS: LazyLock<Settings> = LazyLock::new(|| {
    let default = |key: &Key| read(key.kind, key.default).unwrap_or(Value::Flag(false));
    Settings(Arc::new(KEYS.iter().map(default).collect()))
});

impl Default for Settings {
    fn default() -> Self {
        DEFAULTS.clone()
    }
}

/// A description of the expected value.
pub(super) type Expected = String;

impl Settings {
    /// Sets the setting with this name. `None` if there is none.
    pub(super) fn set(&mut self, name: &str, text: &str) -> Option<Result<(), Expected>> {
        let place = KEYS.iter().position(|key| key.name == name || key.view == name && key.name == FCGI_SCRIPT)?;
        self.set_at(place, text)
    }

    /// Sets the setting with this name in the section `[cache]` of a file. `None` if there is none.
    pub(super) fn set_in_cache(&mut self, name: &str, text: &str) -> Option<Result<(), Expected>> {
        let place = KEYS.iter().position(|key| key.section == Section::Cache && key.view == name)?;
        self.set_at(place, text)
    }

    fn set_at(&mut self, place: usize, text: &str) -> Option<Result<(), Expected>> {
        let (key, known) = (KEYS.get(place)?, self.0.get(place)?);
        // Most values of a file are the defaults.
        if matches!(known, Value::Text(known) if **known == *text) {
            return Some(Ok(()));
        }
        let Some(value) = read(key.kind, text) else { return Some(Err(expected(key.kind))) };
        if *known != value {
            *Arc::make_mut(&mut self.0).get_mut(place)? = value;
        }
        Some(Ok(()))
    }

    /// The settings with their values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static Key, &Value)> {
        KEYS.iter().zip(&*self.0)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
    }

    fn time(&self, name: &str) -> Duration {
        match self.get(name) {
            Some(Value::Time(time)) => *time,
            _ => Duration::ZERO,
        }
    }

    /// Names and values of the options that the settings set.
    pub(super) fn options(&self) -> Vec<(&'static str, String)> {
        let mut options = Vec::new();
        for (key, value) in self.iter().filter(|(key, _)| !key.option.is_empty()) {
            let text = match value {
                Value::Time(time) => format!("{}ms", time.as_millis()),
                // x0d sends no such header if the text is empty.
                Value::Text(text) if text.is_empty() => continue,
                Value::Text(text) => in_option(text).to_owned(),
                other => other.to_string(),
            };
            options.push((key.option, if text == "0ms" { "0".to_owned() } else { text }));
        }
        // Between two parts of a body x0d waits for the backend, or for the client.
        let body = self.time("read-timeout").max(self.time("write-timeout"));
        options.push(("bodyTimeout", format!("{}ms", body.as_millis())));
        if self.get("enabled") == Some(&Value::Flag(false)) {
            options.push(("disabled", "true".to_owned()));
        }
        options
    }

    /// Enables or disables the cluster.
    pub(super) fn set_enabled(&mut self, is_enabled: bool) {
        if let Some(slot) = Arc::make_mut(&mut self.0).first_mut() {
            *slot = Value::Flag(is_enabled);
        }
    }
}

fn in_option(text: &str) -> &str {
    if text == "least-load" { Scheduler::LeastLoad.name() } else { text }
}

fn read(kind: Kind, text: &str) -> Option<Value> {
    match kind {
        Kind::Flag => read_flag(text).map(Value::Flag),
        Kind::Count => read_count(text).map(Value::Count),
        Kind::Time => read_seconds(text).map(Value::Time),
        Kind::Text => is_plain(text).then(|| Value::Text(text.into())),
        Kind::Word(words) => words.contains(&text).then(|| Value::Text(text.into())),
        Kind::Scheduler => {
            let known = Scheduler::ALL.iter().any(|scheduler| scheduler.name() == in_option(text));
            let name = if text == Scheduler::LeastLoad.name() { "least-load" } else { text };
            known.then(|| Value::Text(name.into()))
        }
    }
}

fn expected(kind: Kind) -> Expected {
    match kind {
        Kind::Flag => FLAG.to_owned(),
        Kind::Count => COUNT.to_owned(),
        Kind::Time => TIME.to_owned(),
        Kind::Text => format!("at most {MAX_TEXT} visible characters"),
        Kind::Word(words) => words.join(", "),
        Kind::Scheduler => "rr, chance, least-load, random or hash".to_owned(),
    }
}

pub(super) const FLAG: &str = "true, false, 1 or 0";
pub(super) const COUNT: &str = "a whole number from 0 to 1000000";
pub(super) const TIME: &str = "a number of seconds from 0 to a year, such as 10 or 0.5";

pub(super) fn read_flag(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

pub(super) fn read_count(text: &str) -> Option<u32> {
    read_whole(text, MAX_COUNT)
}

/// A number of seconds, to the millisecond.
pub(super) fn read_seconds(text: &str) -> Option<Duration> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = text.parse().ok().filter(|_| is_plain)?;
    let time = Duration::try_from_secs_f64(number).ok().filter(|time| *time <= MAX_TIME)?;
    // A fraction of a millisecond is dropped; a time above 0 stays above 0.
    let millis = u64::try_from(time.as_millis()).ok()?;
    (millis > 0 || time.is_zero()).then(|| Duration::from_millis(millis))
}

/// Whether a text fits on a line of a file.
fn is_plain(text: &str) -> bool {
    text.len() <= MAX_TEXT && text.trim() == text && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Options;

    #[test]
    fn defaults_are_good_options_and_every_setting_refuses_nonsense() {
        let settings = Settings::default();
        let options = settings.options();
        let pairs = options.iter().map(|(name, value)| (*name, value.as_str()));
        let (read, errors) = Options::read(pairs, &Options::default());
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!((read.queue.limit, read.queue.timeout, read.retries), (128, Duration::from_secs(60), Some(6)));
        assert_eq!(read.timeouts.body, Some(Duration::from_secs(120)));
        for key in KEYS {
            let nonsense = if key.kind == Kind::Text { "a\nb" } else { "nonsense" };
            assert!(matches!(Settings::default().set(key.name, nonsense), Some(Err(_))), "{}", key.name);
            let value = read_default(key);
            assert_eq!(value.to_string(), key.default, "{}", key.name);
        }
        assert!(Settings::default().set("unknown", "1").is_none());
    }

    fn read_default(key: &Key) -> Value {
        read(key.kind, key.default).expect("a good default")
    }

    #[test]
    fn numbers_are_numbers() {
        let table = [("10", Some(10_000)), ("0.5", Some(500)), ("0", Some(0)), (".25", Some(250)), ("1e3", None)];
        let more = [("-1", None), ("", None), ("10s", None), ("0.0001", None), ("31536001", None), ("inf", None)];
        for (text, expected) in table.into_iter().chain(more) {
            assert_eq!(read_seconds(text).map(|time| time.as_millis()), expected, "{text:?}");
        }
        for (text, expected) in [("128", Some(128)), ("12x", None), ("", None), ("+1", None), ("1000001", None)] {
            assert_eq!(read_count(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_scheduler_has_the_name_of_x0d() {
        let mut settings = Settings::default();
        for text in ["least-load", "leastLoad"] {
            assert_eq!(settings.set("scheduler", text), Some(Ok(())));
            assert!(settings.options().contains(&("scheduler", "leastLoad".to_owned())));
            assert_eq!(settings.get("scheduler"), Some(&Value::Text("least-load".into())));
        }
    }
}
