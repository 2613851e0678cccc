//! HAProxy configuration files: what is read, and what becomes of every word.
//!
//! The room is pure: texts, variables and the files that rules name come in, a [`Model`] and [`Finding`]s come out.
//! Nothing here serves a request yet; a builder on a higher floor lowers the model to clusters, rules and listeners.
//! Facts are those of HAProxy's configuration.txt; behaviour is compared with version 2.6.

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

/// A configuration, and what is said of it.
#[derive(Debug)]
pub struct Loaded {
    /// What it means.
    pub model: Model,
    /// What serves.
    pub plan: lower::Plan,
    /// What becomes of its words, in their order.
    pub findings: Vec<Finding>,
    /// The names of its files, by the index that positions have.
    pub files: Vec<String>,
}

/// Whether a configuration can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing of it is lost.
    Whole,
    /// So many words are lost; each is named.
    WithLosses(usize),
    /// So many words are refused, and so many are wrong.
    Not {
        /// Words that decide who gets in or where requests go.
        refused: usize,
        /// Words that are none.
        wrong: usize,
    },
}

impl Loaded {
    /// The verdict; when `lossy`, refused words are losses.
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

/// Reads files in their order.
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

/// The words of each line, variables and conditional blocks resolved; the first fault if there is one.
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
