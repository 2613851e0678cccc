//! Converters: transformations of a sample.

use super::fetch::SampleType;
use super::list::{map_lines, read_list};
use super::lookup::{Networks, Prefixes};
use super::pattern::{TextMatch, parse_network, trimmed};
use super::regex::{Expressions, Regex};
use super::words::{converters, is_other_converter, nearest_converter};
use super::{Problem, RuleContext};
use crate::haproxy::keyword::Treatment;
use crate::haproxy::position::Position;
use std::collections::HashMap;
use std::sync::Arc;

/// The greatest number of lines of a map.
const MAX_MAP: usize = 4_000_000;

/// The most keys of a map that are kept as they are written.
const MAX_WRITTEN: usize = 256;

/// A converter with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Converter {
    /// `lower`.
    Lower,
    /// `upper`.
    Upper,
    /// `host_only`: without the port.
    HostOnly,
    /// `port_only`: the port as a number, 0 without one.
    PortOnly,
    /// `field`: the part with a number, from 1 or from the end with -1; empty parts count.
    Field(i32, Vec<u8>),
    /// `word`: as `field`, but empty parts do not count.
    Word(i32, Vec<u8>),
    /// `bytes`: an offset and an optional length.
    Bytes(usize, Option<usize>),
    /// `length`.
    Length,
    /// `ltrim`.
    TrimStart(Vec<u8>),
    /// `rtrim`.
    TrimEnd(Vec<u8>),
    /// `url_dec`; the flag is `in_form`, where `+` is a space.
    UrlDecode(bool),
    /// `map`, `map_str`, `map_beg`, …
    Map(Arc<MapTable>),
    /// `regsub`; the flag is `g`.
    RegexReplace(Regex, String, bool),
    /// `add`, `sub`, `mul`, `div`, `mod`.
    Arithmetic(Operation, i64),
    /// `bool`.
    Bool,
    /// `not`.
    Not,
    /// `iif(true,false)`.
    IfElse(String, String),
    /// `ipmask`: prefix lengths of IPv4 and IPv6. Without the second an IPv6 address has no outcome.
    IpMask(u8, Option<u8>),
    /// `nbsrv`: the number of servers that are up in the named backend.
    ServersUp,
    /// `concat(before,var,after)`: text and a variable.
    Concat(String, Option<String>, String),
    /// `odd`, or `even` if false.
    Odd(bool),
    /// `base64`, `ub64enc`, `hex`, `url_enc`.
    Encode(Coding),
    /// `b64dec`, `ub64dec`.
    Decode(Coding),
}

/// A coding of bytes as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Base64 with padding (RFC 4648 section 4).
    Base64,
    /// Base64 for URLs, without padding (RFC 4648 section 5).
    UrlBase64,
    /// Hexadecimal digits in upper case.
    Hex,
    /// Percent-encoding of all but letters, digits and `-._~` (RFC 3986 section 2).
    Url,
}

/// The operation of `add` and related converters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the converter of its name")]
pub enum Operation {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    And,
    Or,
    Xor,
    /// It has no operand.
    Neg,
    /// It has no operand.
    Cpl,
}

/// A map file: keys and values. The first match wins; of prefixes and networks the longest.
#[derive(Debug, PartialEq, Eq)]
pub struct MapTable {
    /// The file.
    pub file: String,
    /// The keys.
    pub keys: MapKeys,
    /// The first keys as they are written: what requests may have, for a comparison.
    pub written: Vec<String>,
    /// The value of each key.
    pub values: Vec<String>,
    /// The result if no key matches.
    pub default: Option<String>,
}

/// The keys of a map, each with its place among the values.
#[derive(Debug, PartialEq, Eq)]
pub enum MapKeys {
    /// `map_str`: equal texts.
    Equal(HashMap<Box<[u8]>, usize>),
    /// `map_beg`.
    Begin(Prefixes),
    /// `map_ip`.
    Address(Networks),
    /// `map_reg`.
    Regex(Expressions),
    /// `map_sub`, `map_end`, `map_dir`, `map_dom`: they are compared one by one.
    Other(TextMatch, Vec<Box<[u8]>>),
}

impl Converter {
    /// The type of the result; `None` if it does not change.
    pub fn output(&self) -> Option<SampleType> {
        match self {
            Self::PortOnly | Self::Length | Self::Arithmetic(..) | Self::ServersUp => Some(SampleType::Int),
            Self::Bool | Self::Not | Self::Odd(_) => Some(SampleType::Bool),
            Self::IpMask(..) => Some(SampleType::Ip),
            _ => Some(SampleType::Text),
        }
    }
}

/// A converter by its name and arguments.
pub(super) fn parse(
    name: &str,
    arguments: &[String],
    at: Position,
    context: RuleContext<'_, '_>,
) -> Result<Converter, Problem> {
    let Some(word) = converters().iter().find(|word| word.name == name) else {
        if name.starts_with("lua.") {
            return Err(Problem::unsupported(at, format!("{name}: sluice runs no Lua")));
        }
        if is_other_converter(name) {
            return Err(Problem::unsupported(at, format!("{name}: sluice does not have this converter")));
        }
        let nearest = nearest_converter(name).map(|name| format!("; {name} is similar")).unwrap_or_default();
        return Err(Problem::wrong(at, format!("{name:?} is no converter that sluice knows of{nearest}")));
    };
    if word.treatment == Treatment::Refused {
        return Err(Problem::unsupported(at, format!("{name}: {}", word.reason)));
    }
    let most = match name {
        "regsub" | "concat" => 3,
        "field" | "word" | "bytes" | "iif" | "ipmask" => 2,
        _ if name.starts_with("map") => 2,
        "add" | "sub" | "mul" | "div" | "mod" | "and" | "or" | "xor" | "ltrim" | "rtrim" | "url_dec" => 1,
        // The only part of a URL that HAProxy encodes for.
        "url_enc" => usize::from(arguments.first().is_some_and(|part| part == "query")),
        _ => 0,
    };
    if arguments.len() > most {
        // `field` and `word` may have a count in HAProxy.
        let problem = format!("{name}: sluice takes at most {most} arguments; quote a comma inside of one");
        return Err(Problem::unsupported(at, problem));
    }
    if let Some(kind) = name.strip_prefix("map") {
        return map(kind.trim_start_matches('_'), arguments, at, context);
    }
    if name == "regsub" {
        let (pattern, flags) =
            (arguments.first().map_or("", String::as_str), arguments.get(2).map_or("", String::as_str));
        let regex = Regex::new(pattern, flags.contains('i')).map_err(|problem| Problem::unsupported(at, problem))?;
        return Ok(Converter::RegexReplace(regex, arguments.get(1).cloned().unwrap_or_default(), flags.contains('g')));
    }
    build(name, arguments).map_err(|problem| {
        // HAProxy accepts the name of a variable where a number is expected.
        if arguments.iter().any(|argument| super::fetch::variable(argument).is_ok()) {
            return Problem::unsupported(at, format!("{name}: sluice takes no variables as arguments"));
        }
        Problem::wrong(at, format!("{name}: {problem}"))
    })
}

fn build(name: &str, arguments: &[String]) -> Result<Converter, String> {
    let text = |index: usize| arguments.get(index).map_or("", String::as_str);
    let number = |index: usize| text(index).parse::<i64>().map_err(|_| format!("{:?} is no number", text(index)));
    let position = |index: usize| {
        let number = text(index).parse::<i32>().ok().filter(|number| *number != 0);
        number.ok_or_else(|| format!("{:?} is no position", text(index)))
    };
    let operation = |operation| {
        let value = number(0)?;
        let is_good = value != 0 || !matches!(operation, Operation::Div | Operation::Mod);
        is_good.then_some(Converter::Arithmetic(operation, value)).ok_or_else(|| "division by zero".to_owned())
    };
    Ok(match name {
        "lower" => Converter::Lower,
        "upper" => Converter::Upper,
        "host_only" => Converter::HostOnly,
        "port_only" => Converter::PortOnly,
        "field" => Converter::Field(position(0)?, text(1).into()),
        "word" => Converter::Word(position(0)?, text(1).into()),
        "bytes" => {
            let count =
                |index: usize| text(index).parse::<usize>().map_err(|_| format!("{:?} is no count", text(index)));
            Converter::Bytes(count(0)?, if arguments.len() > 1 { Some(count(1)?) } else { None })
        }
        "length" => Converter::Length,
        "ltrim" => Converter::TrimStart(text(0).into()),
        "rtrim" => Converter::TrimEnd(text(0).into()),
        "url_dec" => Converter::UrlDecode(text(0) == "1"),
        "add" => operation(Operation::Add)?,
        "sub" => operation(Operation::Sub)?,
        "mul" => operation(Operation::Mul)?,
        "div" => operation(Operation::Div)?,
        "mod" => operation(Operation::Mod)?,
        "and" => operation(Operation::And)?,
        "or" => operation(Operation::Or)?,
        "xor" => operation(Operation::Xor)?,
        "neg" => Converter::Arithmetic(Operation::Neg, 0),
        "cpl" => Converter::Arithmetic(Operation::Cpl, 0),
        "odd" => Converter::Odd(true),
        "even" => Converter::Odd(false),
        "base64" => Converter::Encode(Coding::Base64),
        "ub64enc" => Converter::Encode(Coding::UrlBase64),
        "hex" => Converter::Encode(Coding::Hex),
        "url_enc" => Converter::Encode(Coding::Url),
        "b64dec" => Converter::Decode(Coding::Base64),
        "ub64dec" => Converter::Decode(Coding::UrlBase64),
        "bool" => Converter::Bool,
        "not" => Converter::Not,
        "iif" => Converter::IfElse(text(0).to_owned(), text(1).to_owned()),
        "nbsrv" => Converter::ServersUp,
        "concat" => {
            let variable = if text(1).is_empty() { None } else { Some(super::fetch::variable(text(1))?) };
            Converter::Concat(text(0).to_owned(), variable, text(2).to_owned())
        }
        "ipmask" => Converter::IpMask(
            mask(text(0)).ok_or_else(|| format!("{:?} is no mask", text(0)))?,
            match arguments.get(1) {
                Some(text) => Some(mask(text).ok_or_else(|| format!("{text:?} is no mask"))?),
                None => None,
            },
        ),
        _ => return Err("this converter is in no table".to_owned()),
    })
}

/// `24` or `255.255.255.0`.
fn mask(text: &str) -> Option<u8> {
    if let Ok(address) = text.parse::<std::net::Ipv4Addr>() {
        return ipnet::ipv4_mask_to_prefix(address).ok();
    }
    if let Ok(address) = text.parse::<std::net::Ipv6Addr>() {
        return ipnet::ipv6_mask_to_prefix(address).ok();
    }
    text.parse().ok().filter(|bits| *bits <= 128)
}

fn map(kind: &str, arguments: &[String], at: Position, context: RuleContext<'_, '_>) -> Result<Converter, Problem> {
    let kind = kind.split('_').next().unwrap_or_default();
    let matching = match kind {
        "" | "str" | "ip" => TextMatch::Equal,
        "beg" => TextMatch::Begin,
        "end" => TextMatch::End,
        "sub" => TextMatch::Contain,
        "dir" => TextMatch::Folder,
        "dom" => TextMatch::Domain,
        "reg" | "regm" => TextMatch::Regex,
        other => return Err(Problem::unsupported(at, format!("map_{other}: only maps of texts are supported"))),
    };
    let file = arguments.first().filter(|file| !file.is_empty());
    let file = file.ok_or_else(|| Problem::wrong(at, "map: expected the name of a file in parentheses"))?;
    let text = read_list(file, at, context)?;
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for line in map_lines(&text) {
        let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        if keys.len() == MAX_MAP {
            return Err(Problem::unsupported(at, format!("{file} has more than {MAX_MAP} entries")));
        }
        keys.push(trimmed(matching, key));
        values.push(value.trim().to_owned());
    }
    let bytes = || keys.iter().map(|key| key.as_bytes());
    let written = keys.iter().take(MAX_WRITTEN).map(|key| (*key).to_owned()).collect();
    let keys = match matching {
        _ if kind == "ip" => {
            let mut networks = Networks::default();
            for (place, key) in keys.iter().enumerate() {
                let problem = || Problem::wrong(at, format!("{file}: {key:?} is no network"));
                networks.add(parse_network(key).ok_or_else(problem)?, place);
            }
            MapKeys::Address(networks)
        }
        TextMatch::Equal => {
            let mut index = HashMap::with_capacity(keys.len());
            bytes().enumerate().for_each(|(place, key)| {
                index.entry(key.into()).or_insert(place);
            });
            MapKeys::Equal(index)
        }
        TextMatch::Begin => MapKeys::Begin(Prefixes::new(bytes())),
        TextMatch::Regex => {
            let patterns: Vec<_> = keys.iter().map(|key| (*key, false)).collect();
            let problem = |problem| Problem::unsupported(at, format!("{file}: {problem}"));
            MapKeys::Regex(Expressions::new(&patterns).map_err(problem)?)
        }
        other => MapKeys::Other(other, bytes().map(Into::into).collect()),
    };
    let default = arguments.get(1).cloned();
    Ok(Converter::Map(Arc::new(MapTable { file: file.clone(), keys, written, values, default })))
}
