//! Rendering of formats to texts.

use super::convert::{self, each_value};
use super::view::{RequestView, Scratch, Value};
use crate::haproxy::rules::{Fetch, Format, FormatPart, Regex, Sample};

/// The aliases that are supported in formats outside of the log, and their samples.
const ALIASES: [(&str, Fetch); 13] = [
    ("ci", Fetch::Source),
    ("cp", Fetch::SourcePort),
    ("fi", Fetch::Destination),
    ("fp", Fetch::DestinationPort),
    ("f", Fetch::FrontendName),
    ("ft", Fetch::FrontendName),
    ("b", Fetch::BackendName),
    ("s", Fetch::ServerName),
    ("HM", Fetch::Method),
    ("HU", Fetch::CapturedUri),
    ("HP", Fetch::Path),
    ("HPO", Fetch::Path),
    ("ID", Fetch::UniqueId),
];

impl Format {
    /// Appends the text to `out`. A sample without a value is empty; of several values the last one is used.
    pub fn render(&self, view: &dyn RequestView, scratch: &mut Scratch, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                FormatPart::Text(text) => out.extend_from_slice(text.as_bytes()),
                FormatPart::Sample(sample, _) => {
                    sample.render(view, scratch, out);
                }
                FormatPart::Alias(alias, _) => {
                    if let Some((_, fetch)) = ALIASES.iter().find(|(name, _)| name == alias) {
                        super::fetch::each(fetch, view, &mut scratch.joined, &mut |value| {
                            value.with_text(|text| out.extend_from_slice(text));
                            true
                        });
                    }
                }
            }
        }
    }
}

impl Sample {
    /// Calls `see` with each value in order.
    pub fn each(&self, view: &dyn RequestView, scratch: &mut Scratch, see: &mut dyn FnMut(Value<'_>)) {
        each_value(self, view, scratch, &mut |value, _| {
            see(value);
            false
        });
    }

    /// Appends the last value to `out`. Returns whether there is one.
    pub fn render(&self, view: &dyn RequestView, scratch: &mut Scratch, out: &mut Vec<u8>) -> bool {
        let (start, mut has_value) = (out.len(), false);
        each_value(self, view, scratch, &mut |value: Value<'_>, _| {
            out.truncate(start);
            value.with_text(|text| out.extend_from_slice(text));
            has_value = true;
            false
        });
        has_value
    }
}

impl Regex {
    /// Appends the text to `out` with matches replaced, once or everywhere. `\1` and so on in the replacement are
    /// groups.
    pub fn replace(&self, replacement: &[u8], all: bool, text: &[u8], out: &mut Vec<u8>) {
        convert::replace(&self.compiled, replacement, all, text, out);
    }
}

#[cfg(test)]
mod tests {
    use super::ALIASES;
    use crate::haproxy::rules::can_render;

    #[test]
    fn what_is_read_can_be_rendered() {
        assert!(ALIASES.iter().all(|(alias, _)| can_render(alias)));
        assert!(!can_render("ST") && !can_render("o"));
    }
}
