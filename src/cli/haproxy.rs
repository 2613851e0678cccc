//! `sluice haproxy`: commands for HAProxy configuration files.

use super::tools::fail;
use crate::base::printable::printable;
use crate::haproxy::{self, Environment, Finding, Loaded, Treatment, Verdict, files};
use crate::provision::haproxy_diff;
use clap::{Args, Subcommand};
use std::fmt::Write;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Commands for HAProxy files.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Haproxy {
    /// Report how each keyword of HAProxy configuration files is treated: exit 0 if they are usable, 1 if not
    Check(Check),
    /// Print the table of all known keywords
    Words,
    /// Send the same requests through HAProxy and through sluice, each with a copy of the file, and report differences:
    /// exit 0 if there are none, 1 if there are some
    Diff(Diff),
}

/// Arguments of `sluice haproxy diff`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Diff {
    /// The file, or a folder of files *.cfg
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Number of requests
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub requests: usize,
    /// Seed of the random requests
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// The HAProxy program
    #[arg(long, value_name = "FILE", default_value = "haproxy")]
    pub haproxy: PathBuf,
}

/// Arguments of `sluice haproxy check`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Check {
    /// The files in order; for a folder its files *.cfg
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Accept files although keywords are lost that decide about access or routing
    #[arg(long)]
    pub lossy: bool,
    /// Exit 1 if any keyword is lost
    #[arg(long)]
    pub whole: bool,
    /// Leave out keywords that are honoured, mapped or ignored
    #[arg(long)]
    pub losses: bool,
}

/// Runs a command of `sluice haproxy`.
pub(super) fn run(command: &Haproxy) -> ExitCode {
    let (text, code) = match command {
        Haproxy::Diff(diff) => {
            let Diff { file, requests, seed, haproxy } = diff.clone();
            match haproxy_diff::run(&haproxy_diff::Settings { file, haproxy, requests, seed }) {
                Ok(outcome) => {
                    (outcome.text, if outcome.differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
                }
                Err(problem) => return fail(&problem),
            }
        }
        Haproxy::Words => (haproxy::words(), ExitCode::SUCCESS),
        Haproxy::Check(arguments) => return super::status_of(check(arguments)),
    };
    print(&text);
    code
}

/// Reports how the files are treated, and returns whether they are usable.
pub(super) fn check(check: &Check) -> bool {
    let sources = match files::sources(&check.files) {
        Ok(sources) => sources,
        Err(problem) => {
            fail(&problem);
            return false;
        }
    };
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let loaded = haproxy::load(&sources, &mut Environment::new(variables, &files::read));
    print(&report(&loaded, check));
    match loaded.verdict(check.lossy) {
        Verdict::Whole => true,
        Verdict::WithLosses(_) => !check.whole,
        Verdict::Not { .. } => false,
    }
}

fn print(text: &str) {
    // A reader such as head(1) may have closed the pipe.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// A line for every finding, and the verdict.
fn report(loaded: &Loaded, check: &Check) -> String {
    let mut text = String::new();
    let is_shown = |finding: &&Finding| !check.losses || finding.treatment >= Treatment::Lost;
    for finding in loaded.findings.iter().filter(is_shown) {
        let file = loaded.files.get(finding.at.file as usize).map_or("", String::as_str);
        let _ = write!(text, "{file}:{}:{}: {}", finding.at.line, finding.at.column, finding.treatment.name());
        for (before, part) in [(" ", finding.word.as_str()), (": ", &finding.note)] {
            if !part.is_empty() {
                let _ = write!(text, "{before}{}", printable(part));
            }
        }
        text.push('\n');
    }
    let count = |treatment| loaded.findings.iter().filter(|finding| finding.treatment == treatment).count();
    let all = [
        Treatment::Honoured,
        Treatment::Mapped,
        Treatment::Ignored,
        Treatment::Lost,
        Treatment::Refused,
        Treatment::Wrong,
    ];
    let counts: Vec<_> = all.iter().map(|treatment| format!("{} {}", count(*treatment), treatment.name())).collect();
    let _ = writeln!(text, "{}", counts.join(", "));
    let _ = writeln!(
        text,
        "{}",
        match loaded.verdict(check.lossy) {
            Verdict::Whole => "sluice serves it without losses".to_owned(),
            Verdict::WithLosses(losses) => format!("sluice serves it with {losses} losses, each named above"),
            Verdict::Not { wrong: 0, refused } => format!(
                "sluice cannot serve it: {refused} keywords decide about access or routing, and are refused; --lossy \
                 leaves them out"
            ),
            Verdict::Not { wrong, .. } => format!("sluice cannot serve it: {wrong} keywords are wrong"),
        }
    );
    text
}
