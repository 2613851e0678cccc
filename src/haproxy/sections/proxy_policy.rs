//! Lines of a proxy about balancing, checks, persistence and errors.

use super::arguments::Arguments;
use super::scope::ProxyScope;
use super::small::status;
use crate::haproxy::keyword::Treatment::{Ignored, Lost, Mapped};
use crate::haproxy::lexer::Word;
use crate::haproxy::model::{
    Balance, CookieMode, ErrorResponse, ErrorSource, ForwardedFor, HashType, HttpCheckStep, Persistence, Reuse,
    StatsAuth, StickRule, StickTable,
};
use crate::haproxy::position::Fault;
use crate::haproxy::rules::{Sample, parse_condition, parse_network};
use crate::haproxy::units::{Unit, time};
use crate::wire::is_token;

type Outcome = Result<(), Fault>;

pub(super) fn balance(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let Some(word) = arguments.next() else {
        scope.proxy.balance = Balance::RoundRobin;
        scope.outcome = Some((Mapped, "without a word; roundrobin is taken, as in old versions".to_owned()));
        return Ok(());
    };
    let (name, inside) = match word.text.split_once('(') {
        Some((name, inside)) => (name, inside.strip_suffix(')')),
        None => (word.text.as_str(), None),
    };
    scope.proxy.balance = match name {
        "roundrobin" => Balance::RoundRobin,
        "static-rr" => Balance::StaticRoundRobin,
        "leastconn" => Balance::LeastConn,
        "first" => Balance::First,
        "source" => Balance::Source,
        "random" => {
            let draws =
                inside.map_or(Ok(2), str::parse).map_err(|_| Fault::new(word.at, "expected a number of draws"))?;
            Balance::Random(draws)
        }
        "uri" => {
            let (mut len, mut depth, mut whole, mut path_only) = (None, None, false, false);
            while let Some(word) = arguments.next() {
                match word.text.as_str() {
                    "len" => len = Some(small_number(arguments)?),
                    "depth" => depth = Some(small_number(arguments)?),
                    "whole" => whole = true,
                    "path-only" => path_only = true,
                    other => {
                        return Err(Fault::new(word.at, format!("{other:?} is not len, depth, whole or path-only")));
                    }
                }
            }
            Balance::Uri { len, depth, whole, path_only }
        }
        "url_param" => {
            let name = arguments.text("the name of a parameter")?;
            if let Some(word) = arguments.next() {
                scope.note(word, Lost, "parameters in bodies are not read");
                arguments.rest();
            }
            Balance::UrlParam(name)
        }
        "hdr" => {
            let name = inside.filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| Fault::new(word.at, "expected the name of a header in parentheses"))?;
            Balance::Header(name.to_ascii_lowercase(), arguments.accept("use_domain_only"))
        }
        "hash" => {
            let word = arguments.expect("a sample")?;
            let sample = scope.with_rules(|context| Sample::parse(&word.text, word.at, context));
            match scope.settle(sample, false)? {
                Some(sample) => Balance::Hash(Box::new(sample)),
                None => Balance::RoundRobin,
            }
        }
        "rdp-cookie" | "log-hash" | "sticky" => {
            scope.outcome = Some((Lost, format!("{name}: roundrobin is taken")));
            Balance::RoundRobin
        }
        other => {
            let known = "roundrobin, static-rr, leastconn, first, source, uri, url_param, hdr, random or hash";
            return Err(Fault::new(word.at, format!("{other:?} is no way to balance; expected {known}")));
        }
    };
    arguments.finish()
}

fn small_number(arguments: &mut Arguments<'_>) -> Result<u32, Fault> {
    let at = arguments.at;
    u32::try_from(arguments.number("a number")?).map_err(|_| Fault::new(at, "the number is too large"))
}

pub(super) fn hash_type(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let word = arguments.expect("map-based or consistent")?;
    let is_consistent = match word.text.as_str() {
        "map-based" => false,
        "consistent" => true,
        other => return Err(Fault::new(word.at, format!("{other:?} is neither map-based nor consistent"))),
    };
    let mut hash = HashType { is_consistent, function: "sdbm".to_owned(), avalanche: false };
    while let Some(word) = arguments.next() {
        match word.text.as_str() {
            "sdbm" | "djb2" | "wt6" | "crc32" | "none" => hash.function.clone_from(&word.text),
            "avalanche" => hash.avalanche = true,
            other => return Err(Fault::new(word.at, format!("{other:?} is no hash function"))),
        }
    }
    scope.proxy.hash_type = Some(hash);
    Ok(())
}

pub(super) fn cookie(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let mut cookie = Persistence {
        name: arguments.text("the name of the cookie")?,
        mode: CookieMode::Passive,
        indirect: false,
        nocache: false,
        postonly: false,
        preserve: false,
        httponly: false,
        secure: false,
        domains: Vec::new(),
        max_idle: None,
        max_life: None,
        attributes: Vec::new(),
        is_dynamic: false,
    };
    while let Some(word) = arguments.next() {
        match word.text.as_str() {
            "rewrite" => cookie.mode = CookieMode::Rewrite,
            "insert" => cookie.mode = CookieMode::Insert,
            "prefix" => cookie.mode = CookieMode::Prefix,
            "indirect" => cookie.indirect = true,
            "nocache" => cookie.nocache = true,
            "postonly" => cookie.postonly = true,
            "preserve" => cookie.preserve = true,
            "httponly" => cookie.httponly = true,
            "secure" => cookie.secure = true,
            "domain" => cookie.domains.push(arguments.text("a domain")?),
            "maxidle" => cookie.max_idle = Some(arguments.seconds()?),
            "maxlife" => cookie.max_life = Some(arguments.seconds()?),
            "attr" => cookie.attributes.push(arguments.text("an attribute")?),
            "dynamic" => cookie.is_dynamic = true,
            other => return Err(Fault::new(word.at, format!("{other:?} is no word of cookie"))),
        }
    }
    scope.proxy.persistence = Some(cookie);
    Ok(())
}

pub(super) fn httpchk(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let check = &mut scope.proxy.check;
    check.is_http = !scope.is_negated;
    let words = arguments.rest();
    let mut words = words.into_iter();
    match (words.next(), words.next()) {
        (None, _) => {}
        (Some(uri), None) => check.uri = Some(uri),
        (Some(method), Some(uri)) => {
            check.method = Some(method);
            check.uri = Some(uri);
            let rest: Vec<_> = words.collect();
            check.version = (!rest.is_empty()).then(|| rest.join(" "));
        }
    }
    Ok(())
}

pub(super) fn http_check_send(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let (mut method, mut uri, mut version, mut headers, mut body) = (None, None, None, Vec::new(), None);
    while let Some(word) = arguments.next() {
        match word.text.as_str() {
            "meth" => method = Some(arguments.text("a method")?),
            "uri" | "uri-lf" => uri = Some(arguments.text("a target")?),
            "ver" => version = Some(arguments.text("a version")?),
            "hdr" => headers.push((arguments.text("a name")?, arguments.text("a value")?)),
            "body" | "body-lf" => body = Some(arguments.text("a body")?),
            "comment" => drop(arguments.next()),
            other => return Err(Fault::new(word.at, format!("{other:?} is no word of http-check send"))),
        }
    }
    scope.proxy.check.steps.push(HttpCheckStep::Send { method, uri, version, headers, body });
    Ok(())
}

pub(super) fn http_check_expect(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let mut negated = false;
    while let Some(word) = arguments.next() {
        match word.text.as_str() {
            "!" => negated = true,
            "status" | "rstatus" | "string" | "rstring" => {
                let (what, pattern) = (word.text.clone(), arguments.text("a pattern")?);
                scope.proxy.check.steps.push(HttpCheckStep::Expect { negated, what, pattern });
                return arguments.finish();
            }
            "hdr" | "fhdr" => {
                let pattern = arguments.rest().join(" ");
                scope.proxy.check.steps.push(HttpCheckStep::Expect { negated, what: "hdr".to_owned(), pattern });
                return Ok(());
            }
            "min-recv" | "comment" | "ok-status" | "error-status" | "tout-status" | "on-success" | "on-error"
            | "status-code" => {
                scope.note(word, Lost, "a check is good or bad, and its words are the check's own");
                arguments.expect("a value")?;
            }
            other => return Err(Fault::new(word.at, format!("{other:?} is no word of http-check expect"))),
        }
    }
    Err(Fault::new(arguments.at, "expected status, rstatus, string, rstring or hdr"))
}

pub(super) fn http_check_connect(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let words = arguments.rest();
    scope.outcome = Some(match words.is_empty() {
        true => (Ignored, "a check connects in any case".to_owned()),
        false => (Lost, "a check connects as its server line says".to_owned()),
    });
    scope.proxy.check.steps.push(HttpCheckStep::Connect(words));
    Ok(())
}

pub(super) fn forwardfor(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    if scope.is_negated {
        scope.proxy.forwarded_for = None;
        return Ok(());
    }
    let mut forwarded = ForwardedFor::default();
    while let Some(word) = arguments.next() {
        match word.text.as_str() {
            "except" => {
                let network = arguments.expect("a network")?;
                let parsed = parse_network(&network.text);
                let problem = || Fault::new(network.at, format!("{:?} is no network", network.text));
                forwarded.except.push(parsed.ok_or_else(problem)?);
            }
            "header" => forwarded.header = Some(arguments.text("a name")?),
            "if-none" => forwarded.if_none = true,
            other => return Err(Fault::new(word.at, format!("{other:?} is not except, header or if-none"))),
        }
    }
    scope.proxy.forwarded_for = Some(forwarded);
    Ok(())
}

pub(super) fn errorfile(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let status = status(arguments)?;
    let source = match scope.keyword {
        "errorfile" => ErrorSource::RawFile(arguments.text("a file")?),
        "errorloc303" => ErrorSource::Redirect(303, arguments.text("a location")?),
        _ => ErrorSource::Redirect(302, arguments.text("a location")?),
    };
    scope.proxy.errors.push(ErrorResponse { status, source, at: arguments.at });
    arguments.finish()
}

pub(super) fn errorfiles(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let group = arguments.text("a section http-errors")?;
    let mut statuses = vec![0];
    while !arguments.words.is_empty() {
        statuses.push(status(arguments)?);
    }
    // 0 stands for all pages of the section.
    if statuses.len() > 1 {
        statuses.remove(0);
    }
    let of_group = |status| ErrorResponse { status, source: ErrorSource::Group(group.clone()), at: arguments.at };
    let errors = statuses.into_iter().map(of_group);
    scope.proxy.errors.extend(errors);
    Ok(())
}

const UNFILLED: &str = "sluice fills nothing into pages of errors";

/// Reports parts of a format that cannot be filled in.
fn note_unfilled(scope: &mut ProxyScope<'_, '_>, value: &Word) {
    if value.text.contains('%') {
        scope.note(value, Lost, UNFILLED);
    }
}

pub(super) fn http_error(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let (mut code, mut content_type, mut file, mut text, mut headers) = (None, None, None, None, Vec::new());
    let mut source = None;
    while let Some(word) = arguments.next() {
        match word.text.as_str() {
            "status" => code = Some(status(arguments)?),
            "content-type" => content_type = Some(arguments.text("a content type")?),
            "file" => file = Some(arguments.text("a file")?),
            "string" => text = Some(arguments.text("a text")?),
            "lf-file" => {
                scope.note(word, Lost, UNFILLED);
                file = Some(arguments.text("a file")?);
            }
            "lf-string" => {
                let value = arguments.expect("a text")?;
                note_unfilled(scope, value);
                text = Some(value.text.clone());
            }
            "hdr" => {
                let name = arguments.expect("a name")?;
                if !is_token(name.text.as_bytes()) {
                    return Err(Fault::new(name.at, format!("{:?} is no name of a header", name.text)));
                }
                let name = name.text.clone();
                let value = arguments.expect("a value")?;
                note_unfilled(scope, value);
                headers.push((name, value.text.clone()));
            }
            "errorfile" => source = Some(ErrorSource::RawFile(arguments.text("a file")?)),
            "errorfiles" => source = Some(ErrorSource::Group(arguments.text("a section http-errors")?)),
            "default-errorfiles" => {}
            other => return Err(Fault::new(word.at, format!("{other:?} is no word of http-error"))),
        }
    }
    let status = code.ok_or_else(|| Fault::new(arguments.at, "expected status and a number"))?;
    let source = source.unwrap_or(ErrorSource::Content { content_type, file, text, headers });
    scope.proxy.errors.push(ErrorResponse { status, source, at: arguments.at });
    Ok(())
}

pub(super) fn stats(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let keyword = scope.keyword;
    let stats = &mut scope.proxy.stats;
    stats.is_enabled = true;
    match keyword {
        "stats uri" => stats.uri = Some(arguments.text("a path")?),
        "stats realm" => stats.realm = Some(arguments.text("a text")?),
        "stats scope" => stats.scope.push(arguments.text("a proxy")?),
        "stats refresh" => stats.refresh = Some(arguments.seconds()?),
        "stats hide-version" => stats.hides_version = true,
        "stats auth" => {
            let word = arguments.expect("user:password")?;
            let pair = word.text.split_once(':');
            let (user, password) =
                pair.ok_or_else(|| Fault::new(word.at, "expected a user, a colon and a password"))?;
            stats.auth.push(StatsAuth { user: user.to_owned(), password: password.to_owned() });
            // The next word may be a part of the password, so it is not shown.
            if let Some(word) = arguments.next() {
                return Err(Fault::new(word.at, "expected nothing after the password; escape a space in it with \\"));
            }
        }
        _ => {}
    }
    arguments.finish()
}

pub(super) fn compression(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let word = arguments.expect("algo, type or offload")?;
    match word.text.as_str() {
        "algo" | "algo-res" => {
            for word in std::mem::take(&mut arguments.words) {
                if !matches!(word.text.as_str(), "gzip" | "deflate" | "raw-deflate" | "identity") {
                    return Err(Fault::new(
                        word.at,
                        format!("{:?} is not gzip, deflate, raw-deflate or identity", word.text),
                    ));
                }
                scope.proxy.compression.algorithms.push(word.text.clone());
            }
        }
        "type" | "type-res" => scope.proxy.compression.types.extend(arguments.rest()),
        "offload" => scope.proxy.compression.offload = true,
        "direction" if arguments.words.first().is_some_and(|word| word.text == "response") => {
            arguments.rest();
        }
        "direction" | "algo-req" | "type-req" | "minsize-req" | "minsize-res" => {
            scope.note(word, Lost, "responses are compressed, whatever their size");
            arguments.rest();
        }
        other => return Err(Fault::new(word.at, format!("{other:?} is not algo, type or offload"))),
    }
    Ok(())
}

pub(super) fn reuse(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let word = arguments.expect("never, safe, aggressive or always")?;
    scope.proxy.reuse = match word.text.as_str() {
        "never" => Reuse::Never,
        "safe" => Reuse::Safe,
        "aggressive" => Reuse::Aggressive,
        "always" => Reuse::Always,
        other => return Err(Fault::new(word.at, format!("{other:?} is not never, safe, aggressive or always"))),
    };
    arguments.finish()
}

pub(super) fn retry_on(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let known = [
        "none",
        "conn-failure",
        "empty-response",
        "junk-response",
        "response-timeout",
        "0rtt-rejected",
        "all-retryable-errors",
        "401",
        "403",
        "404",
        "408",
        "421",
        "425",
        "429",
        "500",
        "501",
        "502",
        "503",
        "504",
    ];
    // A line takes the place of an earlier one.
    scope.proxy.retry_on.clear();
    for word in std::mem::take(&mut arguments.words) {
        if !known.contains(&word.text.as_str()) {
            return Err(Fault::new(word.at, format!("{:?} is no cause to try again", word.text)));
        }
        scope.proxy.retry_on.push(word.text.clone());
    }
    Ok(())
}

pub(super) fn stick_table(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let mut table =
        StickTable { key: String::new(), key_len: None, size: 0, expire: None, nopurge: false, store: Vec::new() };
    while let Some(word) = arguments.next() {
        match word.text.as_str() {
            "type" => {
                let key = arguments.expect("ip, ipv6, integer, string or binary")?;
                if !["ip", "ipv4", "ipv6", "integer", "string", "binary"].contains(&key.text.as_str()) {
                    return Err(Fault::new(key.at, format!("{:?} is no type of a key", key.text)));
                }
                table.key.clone_from(&key.text);
            }
            "len" => table.key_len = Some(small_number(arguments)?),
            "size" => table.size = arguments.size()?,
            "expire" => table.expire = Some(arguments.time()?),
            "nopurge" => table.nopurge = true,
            "store" => {
                let stored = arguments.expect("what to store")?;
                for part in stored.text.split(',') {
                    let (name, period) = match part.split_once('(') {
                        Some((name, rest)) => {
                            (name, time(rest.trim_end_matches(')'), Unit::Millis).map(|(time, _)| time))
                        }
                        None => (part, None),
                    };
                    table.store.push((name.to_owned(), period));
                }
            }
            "peers" | "write-to" | "recv-only" | "srvkey" | "brates-factor" => {
                scope.note(word, Lost, "tables are this node's own");
                arguments.next();
            }
            other => return Err(Fault::new(word.at, format!("{other:?} is no word of stick-table"))),
        }
    }
    if table.key.is_empty() || table.size == 0 {
        return Err(Fault::new(arguments.at, "expected type and size"));
    }
    scope.proxy.stick_table = Some(table);
    Ok(())
}

pub(super) fn stick(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let keyword = scope.keyword;
    let word = arguments.expect("a key such as src")?;
    let key = scope.with_rules(|context| Sample::parse(&word.text, word.at, context));
    let table = if arguments.accept("table") { Some(arguments.text("a table")?) } else { None };
    let condition = scope.with_rules(|context| parse_condition(arguments.words, context));
    let (Some(key), Some(condition)) = (scope.settle(key, true)?, scope.settle(condition, true)?) else {
        return Ok(());
    };
    let is_match = matches!(keyword, "stick on" | "stick match");
    let is_response = keyword == "stick store-response";
    let is_store = !is_response && keyword != "stick match";
    scope.proxy.stick_rules.push(StickRule { is_match, is_store, is_response, key, table, condition });
    Ok(())
}

pub(super) fn filter(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    use crate::haproxy::keyword::Treatment::Refused;
    let word = arguments.expect("the name of a filter")?;
    arguments.rest();
    scope.outcome = Some(match word.text.as_str() {
        "compression" => (Ignored, "compression needs no filter line".to_owned()),
        "cache" => (Mapped, "sluice's own cache".to_owned()),
        "trace" | "bwlim-in" | "bwlim-out" | "opentracing" => (Lost, format!("there is no filter {}", word.text)),
        other => (Refused, format!("there is no filter {other}, and it may decide who gets in")),
    });
    Ok(())
}
