//! What README.md says of the program, against the program.

use sluice::base::reason::FailureReason;
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn the_table_of_reasons_has_every_reason_in_order() {
    let text = readme();
    let rows = text.lines().skip_while(|line| *line != "| reason | status | when |").skip(2);
    let in_table: Vec<_> = rows.map_while(row).collect();
    let known: Vec<_> = FailureReason::ALL.iter().map(|reason| (reason.name(), reason.status())).collect();
    assert_eq!(in_table, known);
}

/// Name and status of ``| `name` | 400 | … |``.
fn row(line: &str) -> Option<(&str, u16)> {
    let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
    Some((name, rest.split_once(" |")?.0.parse().ok()?))
}

#[test]
fn the_command_line_is_what_the_program_says() {
    let output = Command::new(env!("CARGO_BIN_EXE_sluice")).arg("--help").output().expect("the program");
    let help = String::from_utf8(output.stdout).expect("text");
    assert!(readme().contains(help.trim_end()), "README.md lacks this text:\n{help}");
}

#[test]
fn links_lead_somewhere() {
    let text = readme();
    let targets = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    for target in targets.filter(|target| !target.starts_with("http")) {
        let found = match target.strip_prefix('#') {
            Some(anchor) => text.lines().any(|line| line.starts_with("## ") && anchor_of(&line[3..]) == anchor),
            None => root().join(target).exists(),
        };
        assert!(found, "README.md links to {target}");
    }
}

fn anchor_of(heading: &str) -> String {
    let letters = heading.chars().filter(|letter| letter.is_alphanumeric() || " -".contains(*letter));
    letters.collect::<String>().to_lowercase().replace(' ', "-")
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("README.md")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
