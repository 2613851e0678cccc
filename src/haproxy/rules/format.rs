//! Formats: texts that contain samples and aliases (configuration.txt section 8.2.6).

use super::sample::Sample;
use super::{Problem, RuleContext};
use crate::haproxy::position::Position;

/// The greatest number of parts of one format.
const MAX_PARTS: usize = 1024;

/// The aliases of `log-format`.
const ALIASES: [&str; 62] = [
    "o", "T", "Tl", "Ts", "t", "ms", "tr", "trg", "trl", "B", "CC", "CS", "H", "HM", "HP", "HPO", "HQ", "HU", "HV",
    "ID", "ST", "Ta", "Tc", "Td", "Th", "Ti", "Tq", "TR", "Tr", "Tt", "Tu", "Tw", "U", "ac", "b", "bc", "bi", "bp",
    "bq", "ci", "cp", "f", "fc", "fi", "fp", "ft", "hr", "hrl", "hs", "hsl", "lc", "pid", "r", "rc", "rt", "s", "sc",
    "si", "sp", "sq", "sslc", "sslv",
];

/// Aliases of one or two letters that exist in some versions only.
const MORE_ALIASES: [&str; 8] = ["ts", "tsc", "OG", "Tw", "bq", "rc", "cp", "ST"];

/// The aliases that are supported in formats outside of the log.
const RENDERED: [&str; 20] = [
    "ci", "cp", "fi", "fp", "f", "ft", "b", "s", "HM", "HU", "HP", "HPO", "HQ", "HV", "ID", "Ts", "ms", "pid", "r",
    "rt",
];

/// Whether a format outside of the log may contain this alias.
pub(in super::super) fn can_render(alias: &str) -> bool {
    RENDERED.contains(&alias)
}

/// A text with parts to fill in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// The parts in order.
    pub parts: Vec<FormatPart>,
}

/// A part of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatPart {
    /// A literal text.
    Text(String),
    /// `%[…]`.
    Sample(Sample, FormatFlags),
    /// `%ci` and the like, without the percent sign.
    Alias(&'static str, FormatFlags),
}

/// How a part is written: `%{+Q,+X}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FormatFlags {
    /// `Q`: in quotes.
    pub quoted: bool,
    /// `E`: a backslash before quotes, backslashes and closing brackets.
    pub escaped: bool,
    /// `X`: addresses and numbers of aliases are hexadecimal.
    pub hexadecimal: bool,
    /// `M`: a dash where there is nothing.
    pub mandatory: bool,
}

impl FormatFlags {
    /// These flags as a text such as `+Q,-X` changes them.
    fn with(mut self, text: &str, at: Position) -> Result<Self, Problem> {
        let mut is_on = true;
        for char in text.chars() {
            match char {
                '+' => is_on = true,
                '-' => is_on = false,
                ',' => {}
                'Q' => self.quoted = is_on,
                'E' => self.escaped = is_on,
                'X' => self.hexadecimal = is_on,
                'M' => self.mandatory = is_on,
                other => {
                    return Err(Problem::unsupported(
                        at,
                        format!("{other} in %{{{text}}} is no flag but Q, E, X and M"),
                    ));
                }
            }
        }
        Ok(self)
    }
}

impl Format {
    /// The text, if there is nothing to fill in.
    pub fn as_text(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [FormatPart::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// As a format of a header, a target or a body, where HAProxy has no quotes and no `-` for samples (`LOG_OPT_HTTP`).
    pub(in super::super) fn for_message(mut self) -> Self {
        for part in &mut self.parts {
            if let FormatPart::Sample(_, flags) = part {
                (flags.quoted, flags.mandatory) = (false, false);
            }
        }
        self
    }

    /// A format without parts to fill in.
    pub(in super::super) fn plain(text: &str) -> Self {
        Self { parts: vec![FormatPart::Text(text.to_owned())] }
    }

    /// A format of a sample alone.
    pub(in super::super) fn of_sample(sample: Sample) -> Self {
        Self { parts: vec![FormatPart::Sample(sample, FormatFlags::default())] }
    }

    /// Parses a format.
    pub(in super::super) fn parse(text: &str, at: Position, context: RuleContext<'_, '_>) -> Result<Self, Problem> {
        let mut format = Self::default();
        let mut rest = text;
        let mut flags = FormatFlags::default();
        while let Some(percent) = rest.find('%') {
            format.push_text(&rest[..percent]);
            let after = &rest[percent + 1..];
            if let Some(after) = after.strip_prefix('%') {
                format.push_text("%");
                rest = after;
                continue;
            }
            let (part, after) = item(after, flags, at, context)?;
            // `%{+Q}o` is for all that follows.
            if let FormatPart::Alias("o", all) = part {
                (flags, rest) = (all, after);
                continue;
            }
            if format.parts.len() == MAX_PARTS {
                return Err(Problem::wrong(at, format!("more than {MAX_PARTS} parts in a format")));
            }
            format.parts.push(part);
            rest = after;
        }
        format.push_text(rest);
        Ok(format)
    }

    fn push_text(&mut self, text: &str) {
        match self.parts.last_mut() {
            _ if text.is_empty() => {}
            Some(FormatPart::Text(last)) => last.push_str(text),
            _ => self.parts.push(FormatPart::Text(text.to_owned())),
        }
    }
}

/// Parses the item behind a percent sign: an optional name in parentheses, flags in braces, a sample or an alias.
fn item<'t>(
    text: &'t str,
    flags: FormatFlags,
    at: Position,
    context: RuleContext<'_, '_>,
) -> Result<(FormatPart, &'t str), Problem> {
    let enclosed = |text: &'t str, open: char, close: char| match text.strip_prefix(open) {
        None => Ok(("", text)),
        Some(inside) => {
            let problem = || Problem::wrong(at, format!("expected {close} after %{open} in the format"));
            inside.split_once(close).ok_or_else(problem)
        }
    };
    let (_, text) = enclosed(text, '(', ')')?;
    let (changes, text) = enclosed(text, '{', '}')?;
    let flags = flags.with(changes, at)?;
    if let Some(inside) = text.strip_prefix('[') {
        let end = sample_end(inside).ok_or_else(|| Problem::wrong(at, "expected ] after %[ in the format"))?;
        let sample = Sample::parse(inside[..end].trim(), at, context)?;
        return Ok((FormatPart::Sample(sample, flags), &inside[end + 1..]));
    }
    let len = text.find(|char: char| !char.is_ascii_alphanumeric()).unwrap_or(text.len());
    let known = ALIASES.iter().chain(&MORE_ALIASES);
    // The longest alias wins, so `%Tsx` is `%Ts` and a letter.
    let alias = known.filter(|alias| text[..len].starts_with(**alias)).max_by_key(|alias| alias.len());
    match alias {
        Some(alias) => Ok((FormatPart::Alias(alias, flags), &text[alias.len()..])),
        None => {
            Err(Problem::wrong(at, format!("%{} is nothing in a format; write %% for a percent sign", &text[..len])))
        }
    }
}

/// The position of the closing bracket: brackets in arguments and quotes do not count.
fn sample_end(text: &str) -> Option<usize> {
    let (mut depth, mut quote, mut escaped) = (0usize, None, false);
    for (index, char) in text.char_indices() {
        match (char, quote) {
            _ if escaped => escaped = false,
            ('\\', _) => escaped = true,
            (char, Some(open)) => quote = if char == open { None } else { quote },
            ('\'' | '"', None) => quote = Some(char),
            ('(', None) => depth += 1,
            (')', None) => depth = depth.saturating_sub(1),
            (']', None) if depth == 0 => return Some(index),
            _ => {}
        }
    }
    None
}
