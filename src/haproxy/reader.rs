//! Splits files into lines of words, with conditional blocks resolved (configuration.txt sections 2.3 and 2.4).

use super::directive;
use super::environment::Environment;
use super::lexer::{self, Surroundings, Word};
use super::position::{Fault, Position};

/// The deepest nesting of `.if`. HAProxy's own limit is 32.
const MAX_DEPTH: usize = 32;

/// The greatest number of faults reported for one configuration: later ones rarely add anything.
const MAX_FAULTS: usize = 1000;

/// A file of a configuration: its name for messages, and its bytes.
#[derive(Clone, Debug)]
pub struct Source {
    /// The name in messages and of `.FILE`.
    pub name: String,
    /// The content.
    pub bytes: Vec<u8>,
}

/// The words of a line; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) words: Vec<Word>,
}

/// A remark besides the lines: a message of `.notice`, `.warning`, `.alert`, or style that HAProxy refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remark {
    pub(super) at: Position,
    pub(super) text: String,
}

/// The lines of all files.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) lines: Vec<Line>,
    pub(super) faults: Vec<Fault>,
    pub(super) remarks: Vec<Remark>,
}

/// Reads files in order. Lines of a branch that is not taken are skipped whole, as in HAProxy. `is_section` detects the
/// keywords that begin a section.
pub(super) fn read(sources: &[Source], environment: &mut Environment<'_>, is_section: fn(&str) -> bool) -> Reading {
    let mut reading = Reading::default();
    for (index, source) in sources.iter().enumerate() {
        let mut file = File {
            name: &source.name,
            section: Section::default(),
            blocks: Vec::new(),
            environment,
            reading: &mut reading,
            is_section,
        };
        file.read(u32::try_from(index).unwrap_or(u32::MAX), &source.bytes);
    }
    reading.faults.truncate(MAX_FAULTS);
    reading
}

#[derive(Default)]
struct Section {
    is_global: bool,
    name: String,
}

/// An open block: whether its lines are taken, whether a branch was taken, whether `.else` was seen, and where it
/// began.
struct Block {
    is_taken: bool,
    was_taken: bool,
    has_else: bool,
    is_parent_taken: bool,
    at: Position,
}

struct File<'a, 'e> {
    name: &'a str,
    section: Section,
    blocks: Vec<Block>,
    environment: &'a mut Environment<'e>,
    reading: &'a mut Reading,
    is_section: fn(&str) -> bool,
}

impl File<'_, '_> {
    fn read(&mut self, index: u32, bytes: &[u8]) {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut at = Position { file: index, line: 0, column: 1 };
        for line in bytes.split(|byte| *byte == b'\n') {
            at.line += 1;
            if let Err(fault) = self.line(line, at) {
                self.reading.faults.push(fault);
            }
        }
        if !bytes.is_empty() && !bytes.ends_with(b"\n") {
            let text = "no line end at the end of the file; HAProxy refuses the file, the line is read".to_owned();
            self.reading.remarks.push(Remark { at, text });
        }
        for block in self.blocks.drain(..) {
            self.reading.faults.push(Fault::new(block.at, "this .if has no .endif"));
        }
    }

    fn line(&mut self, line: &[u8], at: Position) -> Result<(), Fault> {
        let is_taken = self.blocks.last().is_none_or(|block| block.is_taken);
        let start = line.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(line.len());
        // Skipped lines may be malformed.
        if !is_taken && line.get(start) != Some(&b'.') {
            return Ok(());
        }
        let surroundings = Surroundings { file_name: self.name, section: &self.section.name, at };
        let words = lexer::words(line, surroundings, self.environment)?;
        let Some((first, rest)) = words.split_first() else { return Ok(()) };
        if first.text.starts_with('.') {
            return self.directive(first, rest, is_taken);
        }
        if (self.is_section)(&first.text) {
            let name = rest.first().unwrap_or(first).text.clone();
            self.section = Section { is_global: first.text == "global", name };
        } else if self.section.is_global {
            let texts: Vec<_> = words.iter().map(|word| word.text.as_str()).collect();
            self.environment.apply(&texts);
        }
        self.reading.lines.push(Line { words });
        Ok(())
    }

    fn directive(&mut self, first: &Word, rest: &[Word], is_taken: bool) -> Result<(), Fault> {
        let text = rest.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
        let environment = &*self.environment;
        let decide = || directive::evaluate(&text, environment).map_err(|problem| Fault::new(first.at, problem));
        let misplaced = |expected: &str| Fault::new(first.at, format!("{} without {expected} before it", first.text));
        match first.text.as_str() {
            ".if" => {
                if self.blocks.len() == MAX_DEPTH {
                    return Err(Fault::new(first.at, format!("more than {MAX_DEPTH} .if inside each other")));
                }
                // A malformed condition takes neither branch.
                let decision = if is_taken { decide() } else { Ok(false) };
                let was_taken = *decision.as_ref().unwrap_or(&true);
                let is_taken_now = decision.as_ref().is_ok_and(|decision| *decision);
                self.blocks.push(Block {
                    is_taken: is_taken_now,
                    was_taken,
                    has_else: false,
                    is_parent_taken: is_taken,
                    at: first.at,
                });
                decision.map(|_| ())
            }
            ".elif" | ".else" => {
                let block =
                    self.blocks.last_mut().filter(|block| !block.has_else).ok_or_else(|| misplaced("an open .if"))?;
                block.has_else = first.text == ".else";
                let is_open = block.is_parent_taken && !block.was_taken;
                block.is_taken = false;
                let decision = if !is_open || block.has_else { Ok(is_open) } else { decide() };
                block.was_taken |= *decision.as_ref().unwrap_or(&true);
                block.is_taken = decision?;
                Ok(())
            }
            ".endif" => self.blocks.pop().map(|_| ()).ok_or_else(|| misplaced("an .if")),
            _ if !is_taken => Ok(()),
            ".alert" => Err(Fault::new(first.at, format!("the file itself says: {text}"))),
            ".notice" | ".warning" => {
                self.reading.remarks.push(Remark { at: first.at, text: format!("the file itself says: {text}") });
                Ok(())
            }
            ".diag" => Ok(()),
            other => {
                let known = ".if, .elif, .else, .endif, .diag, .notice, .warning or .alert";
                Err(Fault::new(first.at, format!("{other} is no directive; expected {known}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> (Vec<String>, Vec<String>, Vec<String>) {
        let mut environment = Environment::new([("SET".into(), "1".into())], &|_| Err("none".into()));
        let source = Source { name: "f".into(), bytes: text.into() };
        let reading = read(&[source], &mut environment, |word| word == "global" || word == "frontend");
        let join = |line: &Line| line.words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
        let faults = reading.faults.iter().map(ToString::to_string).collect();
        let remarks = reading.remarks.into_iter().map(|remark| remark.text).collect();
        (reading.lines.iter().map(join).collect(), faults, remarks)
    }

    #[test]
    fn blocks_are_decided_by_their_conditions() {
        let table: &[(&str, &[&str])] = &[
            (".if 1\na\n.else\nb\n.endif\nc\n", &["a", "c"]),
            (".if 0\na 'unclosed\n.elif 1\nb\n.elif 1\nc\n.else\nd\n.endif\n", &["b"]),
            (".if\na\n.endif\n", &[]),
            (".if defined(SET)\na\n.if 0\nb\n.endif\nc\n.endif\n", &["a", "c"]),
            (".if 0\n.if 1\na\n.else\nb\n.endif\n.nonsense\n.else\nc\n.endif\n", &["c"]),
            (
                "global\nsetenv X 5\nfrontend f\n.if streq(\"$X\",5)\na \"$X\"\n.endif\n",
                &["global", "setenv X 5", "frontend f", "a 5"],
            ),
            ("frontend f\nsetenv X 5\na \"$X\"\n", &["frontend f", "setenv X 5", "a "]),
            ("\u{feff}global\r\na\r\n", &["global", "a"]),
        ];
        for (text, expected) in table {
            let (found, faults, _) = lines(text);
            assert_eq!(found, *expected, "{text:?}");
            assert!(faults.is_empty(), "{text:?}: {faults:?}");
        }
    }

    #[test]
    fn misplaced_directives_are_faults() {
        let table = [
            (".else\n", "1:1: .else without an open .if"),
            (".endif\n", "1:1: .endif without an .if"),
            (".if 1\n.else\n.else\n.endif\n", "3:1: .else without an open .if"),
            ("a\n  .if 1\n", "2:3: this .if has no .endif"),
            (".if nonsense(1)\na\n.else\nb\n.endif\n", "is no condition that sluice knows"),
            (".alert \"do not\"\n", "1:1: the file itself says: do not"),
            (".include x\n", "1:1: .include is no directive"),
        ];
        for (text, expected) in table {
            let (found, faults, _) = lines(text);
            assert_eq!(faults.len(), 1, "{text:?}: {faults:?}");
            assert!(faults[0].contains(expected), "{text:?}: {faults:?}");
            assert!(found.len() <= 1, "{text:?}: {found:?}");
        }
    }

    #[test]
    fn a_missing_line_end_and_notices_are_remarks() {
        let (found, faults, remarks) = lines(".notice hello\na\nb");
        assert_eq!(found, ["a", "b"]);
        assert!(faults.is_empty());
        assert_eq!(remarks.len(), 2, "{remarks:?}");
        assert!(remarks[0].ends_with("hello") && remarks[1].contains("no line end"), "{remarks:?}");
    }
}
