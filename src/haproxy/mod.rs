//! HAProxy configuration files: parsing, the treatment of every keyword, and their rules at run time.
//!
//! The room is pure: texts, variables and files named by rules come in, a [`Model`] and [`Finding`]s come out.
//! [`lower`] turns the model into clusters, rules and listeners, and `serve` evaluates the rules for requests. Facts
//! are those of HAProxy's configuration.txt; behaviour is compared with version 2.6.

mod address;
mod directive;
mod environment;
pub mod files;
mod keyword;
mod lexer;
pub mod lower;
pub mod model;
mod position;
pub mod program;
mod reader;
pub mod rules;
mod sections;
pub mod serve;
mod table;
mod units;

pub use environment::Environment;
pub use keyword::Treatment;
pub use lexer::Word;
pub use model::Model;
pub use position::{Fault, Position};
pub use reader::Source;
pub use sections::Finding;
pub use table::words;

use sections::{is_section, load_lines};

/// A configuration, and the findings about it.
#[derive(Debug)]
pub struct Loaded {
    /// The parsed content.
    pub model: Model,
    /// The parts that serve.
    pub plan: lower::Plan,
    /// The treatment of its keywords, in order.
    pub findings: Vec<Finding>,
    /// The names of its files, by the index used in positions.
    pub files: Vec<String>,
}

/// Whether a configuration is usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is lost.
    Whole,
    /// This many keywords are lost; each is reported.
    WithLosses(usize),
    /// This many keywords are refused, and this many are wrong.
    Not {
        /// Keywords that decide about access or routing.
        refused: usize,
        /// Unknown or malformed keywords.
        wrong: usize,
    },
}

impl Loaded {
    /// The verdict; if `lossy`, refused keywords count as losses.
    pub fn verdict(&self, lossy: bool) -> Verdict {
        let count = |treatment| self.findings.iter().filter(|finding| finding.treatment == treatment).count();
        let (lost, refused, wrong) = (count(Treatment::Lost), count(Treatment::Refused), count(Treatment::Wrong));
        match (lost, refused, wrong) {
            (0, 0, 0) => Verdict::Whole,
            (_, _, 1..) => Verdict::Not { refused, wrong },
            (_, 1.., 0) if !lossy => Verdict::Not { refused, wrong },
            (lost, refused, 0) => Verdict::WithLosses(lost + refused),
        }
    }
}

/// Parses files in order.
pub fn load(sources: &[Source], environment: &mut Environment<'_>) -> Loaded {
    let reading = reader::read(sources, environment, is_section);
    let (model, mut findings) = load_lines(&reading.lines, environment);
    let (plan, lost) = lower::lower(&model, environment);
    findings.extend(lost);
    let say =
        |at, treatment, note: String| Finding { at, word: String::new(), treatment, note: note.into(), section: 0 };
    findings.extend(reading.faults.into_iter().map(|fault| say(fault.at, Treatment::Wrong, fault.problem)));
    findings.extend(reading.remarks.into_iter().map(|remark| say(remark.at, Treatment::Mapped, remark.text)));
    findings.sort_by_key(|finding| finding.at);
    Loaded { model, plan, findings, files: sources.iter().map(|source| source.name.clone()).collect() }
}

/// The words of each line, with variables and conditional blocks resolved; or the first fault.
pub fn split_lines(sources: &[Source], environment: &mut Environment<'_>) -> Result<Vec<Vec<String>>, String> {
    let reading = reader::read(sources, environment, is_section);
    match reading.faults.first() {
        Some(fault) => Err(fault.to_string()),
        None => {
            Ok(reading.lines.into_iter().map(|line| line.words.into_iter().map(|word| word.text).collect()).collect())
        }
    }
}

#[cfg(test)]
mod tests;
