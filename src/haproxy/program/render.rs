//! Rendering of formats to texts.

use super::convert::{self, LONGEST_TEXT, each_value};
use super::fetch::{self, Values, path_and_query, split_query};
use super::view::{RequestView, Scratch, Value};
use crate::haproxy::rules::{Fetch, Format, FormatFlags, FormatPart, Regex, Sample};
use std::io::Write;
use std::net::IpAddr;

impl Format {
    /// Appends the text to `out`, up to [`LONGEST_TEXT`] bytes. A sample without a value is an empty text.
    pub fn render(&self, view: &dyn RequestView, scratch: &mut Scratch, out: &mut Vec<u8>) {
        let most = out.len() + LONGEST_TEXT;
        for part in &self.parts {
            let (flags, start) = match part {
                FormatPart::Text(text) => {
                    out.extend_from_slice(text.as_bytes());
                    continue;
                }
                FormatPart::Sample(_, flags) | FormatPart::Alias(_, flags) => (flags, out.len()),
            };
            match part {
                FormatPart::Sample(sample, _) => {
                    sample.render(view, scratch, out);
                }
                FormatPart::Alias(alias, flags) => put_alias(alias, *flags, view, &mut scratch.joined, out),
                FormatPart::Text(_) => {}
            }
            decorate(*flags, start, out);
            if out.len() >= most {
                return out.truncate(most);
            }
        }
    }
}

/// Applies the flags of a format to the text from `start` on.
fn decorate(flags: FormatFlags, start: usize, out: &mut Vec<u8>) {
    if flags == FormatFlags::default() {
        return;
    }
    if flags.escaped {
        let mut at = start;
        while let Some(byte) = out.get(at).copied() {
            if matches!(byte, b'"' | b'\\' | b']') {
                out.insert(at, b'\\');
                at += 1;
            }
            at += 1;
        }
    }
    if flags.mandatory && !flags.quoted && out.len() == start {
        out.push(b'-');
    }
    if flags.quoted {
        out.insert(start, b'"');
        out.push(b'"');
    }
}

/// Appends what an alias stands for.
fn put_alias(alias: &str, flags: FormatFlags, view: &dyn RequestView, joined: &mut Vec<u8>, out: &mut Vec<u8>) {
    let captured = view.captured_uri().unwrap_or_default();
    let version = || {
        let (major, minor) = view.version();
        [b"HTTP/", &[b'0'.saturating_add(major), b'.', b'0'.saturating_add(minor)][..]].concat()
    };
    let fetch = match alias {
        "ci" => return put_ip(view.source().ip().to_canonical(), flags, out),
        "fi" => return put_ip(view.destination().ip().to_canonical(), flags, out),
        "cp" => return put_number(view.source().port().into(), 4, flags, out),
        "fp" => return put_number(view.destination().port().into(), 4, flags, out),
        "pid" => return put_number(std::process::id().into(), 4, flags, out),
        "rt" => return put_number(view.request_number(), 4, flags, out),
        "Ts" => return put_number(view.unix_seconds().try_into().unwrap_or(0), 4, flags, out),
        "ms" => {
            let millis = view.subsec_millis();
            return match flags.hexadecimal {
                true => put_number(millis.into(), 2, flags, out),
                false => drop(write!(out, "{millis:03}")),
            };
        }
        "HU" => return out.extend_from_slice(captured),
        "HP" => return out.extend_from_slice(split_query(captured).0),
        "HPO" => return out.extend_from_slice(path_and_query(captured).map_or(&[][..], |path| split_query(path).0)),
        "HQ" => {
            let start = captured.len() - split_query(captured).1.map_or(0, |query| query.len() + 1);
            return out.extend_from_slice(captured.get(start..).unwrap_or_default());
        }
        "HV" => return out.extend_from_slice(&version()),
        "r" => return out.extend_from_slice(&[view.method(), captured, &version()].join(&b' ')),
        "f" | "ft" => Fetch::FrontendName,
        // Until a backend is chosen it is the frontend.
        "b" if view.names()[1].is_none() => Fetch::FrontendName,
        "b" => Fetch::BackendName,
        "s" if view.names()[2].is_none() => return out.extend_from_slice(b"<NOSRV>"),
        "s" => Fetch::ServerName,
        "HM" => Fetch::Method,
        "ID" => Fetch::UniqueId,
        _ => return,
    };
    fetch::each(&fetch, Values::One, view, joined, &mut |value| {
        value.with_text(|text| out.extend_from_slice(text));
        true
    });
    // A frontend with TLS has a mark.
    if alias == "ft" && view.is_tls() {
        out.push(b'~');
    }
}

/// A number, with at least so many digits if it is hexadecimal.
fn put_number(number: u64, digits: usize, flags: FormatFlags, out: &mut Vec<u8>) {
    match flags.hexadecimal {
        true => drop(write!(out, "{number:0digits$X}")),
        false => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
    }
}

fn put_ip(ip: IpAddr, flags: FormatFlags, out: &mut Vec<u8>) {
    // A vector takes all that is written.
    let _ = match (ip, flags.hexadecimal) {
        (ip, false) => write!(out, "{ip}"),
        (IpAddr::V4(ip), true) => write!(out, "{:08X}", u32::from(ip)),
        (IpAddr::V6(ip), true) => write!(out, "{:032X}", u128::from(ip)),
    };
}

impl Sample {
    /// Calls `see` with the value, if there is one.
    pub fn each(&self, view: &dyn RequestView, scratch: &mut Scratch, see: &mut dyn FnMut(Value<'_>)) {
        each_value(self, Values::One, view, scratch, &mut |value, _| {
            see(value);
            false
        });
    }

    /// Appends the value to `out`; of several the one that counts outside of ACLs. Whether there is one.
    pub fn render(&self, view: &dyn RequestView, scratch: &mut Scratch, out: &mut Vec<u8>) -> bool {
        let mut has_value = false;
        each_value(self, Values::One, view, scratch, &mut |value: Value<'_>, _| {
            value.with_text(|text| out.extend_from_slice(text));
            has_value = true;
            true
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
