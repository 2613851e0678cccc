//! Keywords outside of groups.

use super::super::{captures, lines, proxy_policy as policy, proxy_rules as rules};
use super::Read::With;
use super::{B, CAPTURE, D, F, KEEPALIVE, LOG, ProxyWord, not, ours, word};
use crate::haproxy::keyword::Treatment::{Honoured, Ignored, Lost, Mapped, Refused};
use crate::haproxy::model::Mode;
use crate::haproxy::position::Fault;

pub(super) const WORDS: &[ProxyWord] = &[
    ours("acl", D | F | B, With(rules::acl)),
    word(
        "backlog",
        D | F,
        Mapped,
        "4096, or what the kernel allows",
        With(|scope, arguments| {
            scope.proxy.backlog = Some(arguments.number("a number of connections")?);
            arguments.finish()
        }),
    ),
    not("appsession", D | B, Refused, "HAProxy removed this word in 1.6; write cookie or stick"),
    ours("balance", D | B, With(policy::balance)),
    not("be-unpublished", B, Refused, "unpublished backends are not distinguished"),
    ours("bind", F, With(lines::bind_line)),
    word("block", F | B, Mapped, "HAProxy removed this word in 2.1; write http-request deny", With(rules::block)),
    not("capture cookie", F, Lost, "the access log has its own columns; use its headers setting"),
    word("capture request header", F, Mapped, CAPTURE, With(captures::header)),
    word("capture response header", F, Mapped, CAPTURE, With(captures::header)),
    not("clitcpka-cnt", D | F, Lost, KEEPALIVE),
    not("clitcpka-idle", D | F, Lost, KEEPALIVE),
    not("clitcpka-intvl", D | F, Lost, KEEPALIVE),
    ours("compression", D | F | B, With(policy::compression)),
    ours("cookie", D | B, With(policy::cookie)),
    not("crt", F, Refused, "certificates of a frontend stand at its bind lines"),
    word("declare capture", F, Mapped, CAPTURE, With(captures::declare)),
    ours("default-server", D | B, With(lines::default_server)),
    ours("default_backend", D | F, With(rules::default_backend)),
    not("description", F | B, Ignored, "a description"),
    ours(
        "disabled",
        D | F | B,
        With(|scope, arguments| {
            scope.proxy.is_disabled = true;
            arguments.finish()
        }),
    ),
    not("dispatch", B, Refused, "HAProxy removed this word in 3.3; write a server"),
    ours(
        "dynamic-cookie-key",
        D | B,
        With(|scope, arguments| {
            scope.proxy.dynamic_cookie_key = Some(arguments.text("a secret key")?);
            arguments.finish()
        }),
    ),
    not("email-alert", D | F | B, Lost, "sluice does not send mail"),
    ours(
        "enabled",
        D | F | B,
        With(|scope, arguments| {
            scope.proxy.is_disabled = false;
            arguments.finish()
        }),
    ),
    not("error-log-format", D | F, Lost, LOG),
    ours("errorfile", D | F | B, With(policy::errorfile)),
    ours("errorfiles", D | F | B, With(policy::errorfiles)),
    ours("errorloc", D | F | B, With(policy::errorfile)),
    ours("errorloc302", D | F | B, With(policy::errorfile)),
    ours("errorloc303", D | F | B, With(policy::errorfile)),
    not("external-check", D | B, Lost, "sluice does not run programs as checks"),
    word("filter", D | F | B, Honoured, "", With(policy::filter)),
    not("filter-sequence", F | B, Lost, "filters have a fixed order"),
    not("force-be-switch", F, Refused, "disabled backends are never used"),
    not("force-persist", B, Refused, "servers that are down are never used"),
    word(
        "fullconn",
        D | B,
        Lost,
        "limits do not depend on the load",
        With(|scope, arguments| {
            scope.proxy.fullconn = Some(arguments.number("a number of connections")?);
            arguments.finish()
        }),
    ),
    not("grace", D | F | B, Ignored, "server.drainTimeout"),
    not("guid", F | B, Ignored, "proxies have no identifiers"),
    word(
        "hash-balance-factor",
        D | B,
        Mapped,
        "a server has at most 1.25 times its share",
        With(|scope, arguments| {
            scope.proxy.hash_balance_factor = arguments.number("percent")?;
            arguments.finish()
        }),
    ),
    not("hash-preserve-affinity", D | B, Lost, "full servers are skipped"),
    word("hash-type", D | B, Mapped, "consistent, with a function of its own", With(policy::hash_type)),
    ours("http-error", D | F | B, With(policy::http_error)),
    word("http-reuse", D | B, Mapped, "an idle connection serves any client", With(policy::reuse)),
    not("http-send-name-header", D | B, Lost, "servers do not get their names"),
    not("id", F | B, Ignored, "proxies have no numbers"),
    not("ignore-persist", B, Refused, "exceptions from persistence are not supported"),
    not("load-server-state-from-file", D | B, Lost, "states of servers are not kept over a restart"),
    word("log", D | F | B, Mapped, "server.accessLog", With(lines::log_line)),
    word("log-format", D | F, Mapped, "server.accessLog, in its own format", With(rules::format)),
    not("log-format-sd", D | F, Lost, LOG),
    not("log-steps", D | F, Lost, LOG),
    word(
        "log-tag",
        D | F | B,
        Mapped,
        "server.accessLog",
        With(|scope, arguments| {
            scope.proxy.log_tag = Some(arguments.text("a tag")?);
            arguments.finish()
        }),
    ),
    not("max-keep-alive-queue", D | B, Ignored, "a pooled connection is used when there is one"),
    not("max-session-srv-conns", D | F, Ignored, "connections to servers do not belong to clients"),
    word(
        "maxconn",
        D | F,
        Honoured,
        "",
        With(|scope, arguments| {
            scope.proxy.maxconn = Some(arguments.number("a number of connections")?);
            arguments.finish()
        }),
    ),
    ours(
        "mode",
        D | F | B,
        With(|scope, arguments| {
            let word = arguments.expect("http or tcp")?;
            scope.proxy.mode = match word.text.as_str() {
                "http" => Mode::Http,
                "tcp" => Mode::Tcp,
                "health" | "log" | "spop" | "haterm" => Mode::Other,
                other => return Err(Fault::new(word.at, format!("{other:?} is no mode; expected http or tcp"))),
            };
            arguments.finish()
        }),
    ),
    ours("monitor fail", F, With(rules::monitor_fail)),
    not("monitor-net", D | F, Lost, "HAProxy removed this word in 2.1; write http-request return if { src … }"),
    ours(
        "monitor-uri",
        D | F,
        With(|scope, arguments| {
            let target = arguments.text("a path")?;
            if !target.starts_with('/') {
                let note = "targets are compared in origin form; write the path of the URL".to_owned();
                scope.outcome = Some((Lost, note));
            }
            scope.proxy.monitor_uri = Some(target);
            arguments.finish()
        }),
    ),
    not("persist rdp-cookie", D | B, Refused, "sluice does not support RDP"),
    not("quic-initial", D | F, Ignored, "sluice does not support QUIC"),
    word(
        "rate-limit sessions",
        D | F,
        Lost,
        "connection rates are not limited",
        With(|scope, arguments| {
            scope.proxy.session_rate = Some(arguments.number("connections a second")?);
            arguments.finish()
        }),
    ),
    word(
        "retries",
        D | B,
        Mapped,
        "another server is tried, not the same one",
        With(|scope, arguments| {
            scope.proxy.retries = Some(arguments.number("a number of tries")?);
            arguments.finish()
        }),
    ),
    word(
        "retry-on",
        D | B,
        Mapped,
        "connect, close, timeout, 502, 503, 504, with another server, and what may be sent twice; other causes are lost",
        With(policy::retry_on),
    ),
    ours("server", B, With(lines::server_line)),
    not("server-state-file-name", D | B, Lost, "states of servers are not kept over a restart"),
    ours("server-template", B, With(lines::server_template)),
    not("source", D | B, Lost, "the address to connect from is the system's choice"),
    not("srvtcpka-cnt", D | B, Lost, KEEPALIVE),
    not("srvtcpka-idle", D | B, Lost, KEEPALIVE),
    not("srvtcpka-intvl", D | B, Lost, KEEPALIVE),
    not("transparent", D | B, Refused, "a request goes to a server of its backend"),
    word("unique-id-format", D | F | B, Honoured, "", With(rules::format)),
    ours(
        "unique-id-header",
        D | F,
        With(|scope, arguments| {
            scope.proxy.unique_id_header = Some(arguments.text("a name")?);
            arguments.finish()
        }),
    ),
    not("use-fcgi-app", B, Refused, "sluice speaks HTTP to servers"),
];
