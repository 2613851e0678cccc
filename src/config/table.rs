//! The table of all settings: it is the one of docs/configuration.md, and the source of `--help-settings` and of the
//! sample configuration. Tests compare its names with the settings that are read, and its defaults with the actual
//! ones.

use serde_json::Value;
use std::fmt::Write as _;

/// The page with the table, and the first line of the table.
const PAGE: &str = include_str!("../../docs/configuration.md");
const HEAD: &str = "| setting | default | meaning |";

/// The width of a line of help, in characters.
const WIDTH: usize = 100;

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    /// Its path in the file, such as `server.accessLog`.
    name: String,
    /// The default, in words or as written in the file.
    default: String,
    /// The meaning, without markup.
    meaning: String,
}

/// All settings, in the order of the page.
fn settings() -> Vec<Setting> {
    let rows = PAGE.lines().skip_while(|line| *line != HEAD).skip(2).take_while(|line| line.starts_with('|'));
    rows.filter_map(read_row).collect()
}

fn read_row(row: &str) -> Option<Setting> {
    let mut cells = row.strip_prefix("| ")?.strip_suffix(" |")?.splitn(3, " | ").map(plain);
    Some(Setting { name: cells.next()?, default: cells.next()?, meaning: cells.next()? })
}

/// A text without the markup of links and code.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    // A bracket within code is not a link.
    while let Some((before, tail)) = rest.split_once("](") {
        let (start, label) = before.rsplit_once('[').unwrap_or(("", before));
        out.push_str(start);
        out.push_str(label);
        rest = tail.split_once(')').map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out.replace('`', "")
}

/// The settings for a terminal.
pub fn help() -> String {
    let mut out = String::new();
    for Setting { name, default, meaning } in settings() {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name} (default: {default})");
        let mut line = String::new();
        for word in meaning.split(' ') {
            if !line.is_empty() && line.chars().count() + word.chars().count() + 5 > WIDTH {
                let _ = writeln!(out, "    {line}");
                line.clear();
            }
            let space = if line.is_empty() { "" } else { " " };
            let _ = write!(line, "{space}{word}");
        }
        let _ = writeln!(out, "    {line}");
    }
    out
}

/// A configuration with all settings at their defaults, each after a comment, in the order of the page. A default that
/// is not a value has only its comment.
pub fn sample() -> String {
    let settings = settings();
    let rows: Vec<(&str, &Setting)> = settings.iter().map(|setting| (setting.name.as_str(), setting)).collect();
    let mut out = String::new();
    put_section(&mut out, &rows, 1);
    out.push('\n');
    out
}

/// A section of these settings, each with its name within the section.
fn put_section(out: &mut String, mut rows: &[(&str, &Setting)], depth: usize) {
    let mut before = "{";
    while let Some((name, setting)) = rows.first() {
        out.push_str(before);
        before = ",";
        match name.split_once('.') {
            None => {
                put_setting(out, name, setting, depth);
                rows = &rows[1..];
            }
            Some((section, _)) => {
                let within = |row: &(&str, &Setting)| row.0.strip_prefix(section)?.strip_prefix('.').map(str::len);
                let count = rows.iter().take_while(|row| within(row).is_some()).count();
                let inner: Vec<_> = rows[..count].iter().map(|row| (&row.0[section.len() + 1..], row.1)).collect();
                put_name(out, section, depth);
                put_section(out, &inner, depth + 1);
                rows = &rows[count..];
            }
        }
    }
    put_line(out, depth - 1);
    out.push('}');
}

fn put_setting(out: &mut String, name: &str, Setting { default, meaning, .. }: &Setting, depth: usize) {
    let value = serde_json::from_str::<Value>(default).ok();
    let comment = if value.is_some() { meaning.clone() } else { format!("{default}. {meaning}") };
    put_name(out, &format!("{}{name}", super::unknown::COMMENT), depth);
    // Writing to a string cannot fail.
    let _ = write!(out, "{}", Value::from(comment));
    if let Some(value) = value {
        out.push(',');
        put_name(out, name, depth);
        let _ = write!(out, "{value}");
    }
}

fn put_name(out: &mut String, name: &str, depth: usize) {
    put_line(out, depth);
    let _ = write!(out, "\"{name}\": ");
}

fn put_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("    ", depth));
}

#[cfg(test)]
mod tests {
    use super::super::tests::with;
    use super::super::*;
    use super::*;
    use serde_json::json;

    /// The settings of a text, regardless of warnings.
    fn read(value: &Value) -> Settings {
        let result = from_text(&value.to_string(), Path::new("a.json"), &Overrides::default());
        result.unwrap_or_else(|failure| panic!("{value}: {failure}")).0
    }

    #[test]
    fn documented_defaults_are_what_holds() {
        let unset = read(&with(&json!({})));
        let mut checked = 0;
        for setting in settings().iter().filter(|setting| setting.name != "driver") {
            let Ok(default) = serde_json::from_str::<Value>(&setting.default) else { continue };
            let mut value = default;
            for key in setting.name.rsplit('.') {
                value = json!({ key: value });
            }
            assert_eq!(read(&with(&value)), unset, "{}: the default is not {}", setting.name, setting.default);
            checked += 1;
        }
        assert!(checked > 50, "{checked} defaults are values");
    }

    #[test]
    fn the_sample_has_all_settings_and_changes_nothing() {
        let sample: Value = serde_json::from_str(&sample()).expect("JSON");
        let (settings, warnings) =
            from_text(&sample.to_string(), Path::new("a.json"), &Overrides::default()).expect("a good one");
        let (defaults, _) = from_text("{}", Path::new("a.json"), &Overrides::default()).expect("a good one");
        assert_eq!(settings, defaults);
        let unknown = |warning: &&Warning| matches!(warning, Warning::UnknownKey { .. } | Warning::Twice { .. });
        assert_eq!(warnings.iter().find(unknown), None);
    }

    #[test]
    fn rows_are_read_without_their_marks() {
        let row = "| `a.b` | `[\"x\"]` | The [first](p.md#q) and `[1, 2]`, [more](r.md) |";
        let expected =
            Setting { name: "a.b".into(), default: "[\"x\"]".into(), meaning: "The first and [1, 2], more".into() };
        assert_eq!(read_row(row), Some(expected));
        assert!(help().lines().all(|line| line.chars().count() <= 140), "{}", help());
    }
}
