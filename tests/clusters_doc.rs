//! The tables of docs/clusters.md, against the program.

use sluice::cluster::{ATTRIBUTES, DEFINITIONS, Scheduler};
use std::fs;
use std::path::Path;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clusters.md");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
}

/// The rows of the table with this head, without the separator.
fn table(page: &str, head: &str) -> Vec<String> {
    let lines = page.lines().skip_while(|line| *line != head).skip(2);
    lines.take_while(|line| line.starts_with('|')).map(str::to_owned).collect()
}

#[test]
fn every_option_is_documented_as_it_is_defined() {
    let rows = table(&page(), "| option | default | values | meaning |");
    let expected: Vec<_> = DEFINITIONS
        .iter()
        .map(|option| {
            let default = if option.default.is_empty() { "–".to_owned() } else { format!("`{}`", option.default) };
            let values = option.expected.replace('|', "&#124;");
            format!("| `{}` | {default} | {values} | {} |", option.name, option.meaning)
        })
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn every_attribute_is_documented_as_it_is_defined() {
    let rows = table(&page(), "| attribute | values | meaning |");
    let expected: Vec<_> = ATTRIBUTES
        .iter()
        .map(|attribute| format!("| `{}` | {} | {} |", attribute.name, attribute.expected, attribute.meaning))
        .collect();
    assert_eq!(rows[..expected.len()], expected);
    // Those of the connection stand behind.
    assert!(rows[expected.len()..].iter().all(|row| row.starts_with("| `proxy` |")
        || ["| `sni` |", "| `verify`, `insecure` |", "| `ca` |"].iter().any(|known| row.starts_with(known))));
}

#[test]
fn every_scheduler_is_documented() {
    let rows = table(&page(), "| scheduler | choice among the backends that have room |");
    let names = rows.iter().map(|row| row.split('`').nth(1).unwrap_or_default().to_owned());
    assert_eq!(names.collect::<Vec<_>>(), Scheduler::ALL.map(Scheduler::name));
}
