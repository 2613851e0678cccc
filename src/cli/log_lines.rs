//! The lines of the program's own log: text, or JSON with fields.
//!
//! An event is one line in both forms, whatever text of clients and backends it quotes: control characters and the line
//! separators of Unicode are escaped. Only the backtrace of a panic, which holds nothing foreign, spans several lines of
//! text.

use crate::base::clock::Clock;
use crate::base::printable::printable;
use crate::config::LogFormat;
use jiff::Timestamp;
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, Record};
use std::collections::BTreeMap;
use std::env;
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::process;

/// The environment variable that takes precedence over `server.logFormat`.
pub(super) const VARIABLE: &str = "SLUICE_LOG_FORMAT";

/// The field that text shows on lines of its own.
const BACKTRACE: &str = "backtrace";

/// The form that the environment asks for; an error is the value that names none.
pub(super) fn from_environment() -> Result<Option<LogFormat>, String> {
    let wish = env::var_os(VARIABLE).unwrap_or_default();
    let wish = wish.to_string_lossy();
    if wish.is_empty() { Ok(None) } else { LogFormat::named(&wish).map(Some).ok_or_else(|| wish.into_owned()) }
}

/// Writes lines to standard error before there is a log, or when it is silenced.
pub(super) fn print(format: LogFormat, level: Level, text: &str) {
    if format == LogFormat::Text {
        return eprintln!("{}", text.trim_end_matches('\n'));
    }
    for line in text.lines() {
        let line = plain(format, level, line);
        // A failure of standard error cannot be reported anywhere.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

/// A line without fields.
pub(super) fn plain(format: LogFormat, level: Level, message: &str) -> String {
    match format {
        LogFormat::Text => format!("{}\n", printable(message)),
        LogFormat::Json => json(level, "sluice", message, &BTreeMap::new()),
    }
}

/// Writes a record.
pub(super) fn write(format: LogFormat, out: &mut env_logger::fmt::Formatter, record: &Record<'_>) -> io::Result<()> {
    let message = record.args().to_string();
    let mut fields = Fields::default();
    // A field that cannot be read is left out.
    let _ = record.key_values().visit(&mut fields);
    if format == LogFormat::Json {
        return out.write_all(json(record.level(), record.target(), &message, &fields.0).as_bytes());
    }
    let style = out.default_level_style(record.level());
    let (level, target) = (record.level(), printable(record.target()));
    writeln!(out, "[{:.0} {style}{level:<5}{style:#} {target}] {}", now(), printable(&message))?;
    let trace = fields.0.get(BACKTRACE).map(String::as_str).unwrap_or_default();
    trace.lines().try_for_each(|line| writeln!(out, "    {}", printable(line)))
}

/// The fields of a record beside the fixed ones.
#[derive(Debug, Default)]
struct Fields(BTreeMap<String, String>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.insert(key.to_string(), value.to_string());
        Ok(())
    }
}

fn json(level: Level, target: &str, message: &str, fields: &BTreeMap<String, String>) -> String {
    let mut line = String::with_capacity(message.len() + 128);
    let time = format!("{:.3}", now());
    let level = level.as_str().to_ascii_lowercase();
    // Writing to a string cannot fail.
    let _ = write!(line, "{{\"time\":{},\"level\":{},\"target\":{}", Quoted(&time), Quoted(&level), Quoted(target));
    let _ = write!(line, ",\"pid\":{},\"message\":{}", process::id(), Quoted(message));
    for (name, value) in fields {
        let _ = write!(line, ",{}:{}", Quoted(name), Quoted(value));
    }
    line.push_str("}\n");
    line
}

/// A JSON string. Beside what JSON asks for, every character is escaped that ends a line or moves a cursor somewhere.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = serde_json::Value::from(self.0).to_string();
        let is_harmless = |char: char| !(char.is_control() || matches!(char, '\u{2028}' | '\u{2029}'));
        quoted.chars().try_for_each(|char| {
            if is_harmless(char) { out.write_char(char) } else { write!(out, "\\u{:04x}", u32::from(char)) }
        })
    }
}

/// The time of the system's clock, as it is now: a clock of the process would ignore later steps.
fn now() -> Timestamp {
    let clock = Clock::new();
    Timestamp::try_from(clock.wall(clock.now())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_one_line_whatever_it_quotes() {
        let foreign = "a\"b\\\r\n{\"level\":\"error\"}\u{1b}[31m\u{85}\u{2028}\u{9b}\u{7f}\u{e9}\u{1f600}";
        let fields = BTreeMap::from([("host".to_owned(), foreign.to_owned())]);
        let line = json(Level::Warn, "sluice::x", foreign, &fields);
        let text = line.strip_suffix('\n').expect("an end of line");
        assert!(!text.contains(|char: char| char.is_control() || char == '\u{2028}'), "{text:?}");
        let read: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!((&read["message"], &read["host"]), (&foreign.into(), &foreign.into()));
        assert_eq!((&read["level"], &read["target"]), (&"warn".into(), &"sluice::x".into()));
        assert_eq!(read["pid"], process::id());
        let time = read["time"].as_str().expect("a time");
        assert!(time.parse::<Timestamp>().is_ok() && time.len() == "2026-01-01T00:00:00.000Z".len(), "{time}");
    }

    #[test]
    fn text_is_one_line_whatever_it_quotes() {
        assert_eq!(plain(LogFormat::Text, Level::Info, "a\nb\u{2028}\u{1b}c"), "a\\nb\\u{2028}\\u{1b}c\n");
    }
}
