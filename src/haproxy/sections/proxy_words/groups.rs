//! Keywords in groups: checks, rules, statistics, stick tables, timeouts, and obsolete ones.

use super::super::{proxy_policy as policy, proxy_rules as rules};
use super::Read::{Timeout, With};
use super::{B, D, F, ProxyWord, not, ours, word};
use crate::haproxy::keyword::Treatment::{Ignored, Lost, Mapped, Refused};

const OLD: &str = "HAProxy removed this word in 2.1; write http-request or http-response";
const TCP_CHECK: &str = "servers are checked over HTTP or by a connection";
const STATS: &str = "sluice's own page, with HAProxy's CSV behind ;csv";
const VARIABLES: &str = "variables are not available in checks";

/// Most of them may occur many times in one section.
pub(super) const WORDS: &[ProxyWord] = &[
    ours("http-after-response", D | F | B, With(rules::rule)),
    not("http-check comment", D | B, Ignored, "a description"),
    word("http-check connect", D | B, Lost, "checks connect as requests do", With(policy::http_check_connect)),
    word(
        "http-check disable-on-404",
        D | B,
        Lost,
        "a server that responds 404 is up, or down if http-check expect says so",
        With(|scope, arguments| {
            scope.proxy.check.disable_on_404 = true;
            arguments.finish()
        }),
    ),
    ours("http-check expect", D | B, With(policy::http_check_expect)),
    ours("http-check send", D | B, With(policy::http_check_send)),
    word(
        "http-check send-state",
        D | B,
        Mapped,
        "X-Haproxy-Server-State is not sent",
        With(|scope, arguments| {
            scope.proxy.check.send_state = true;
            arguments.finish()
        }),
    ),
    not("http-check set-var", D | B, Lost, VARIABLES),
    not("http-check unset-var", D | B, Lost, VARIABLES),
    ours("http-request", D | F | B, With(rules::rule)),
    ours("http-response", D | F | B, With(rules::rule)),
    ours("redirect", F | B, With(rules::redirect)),
    word("reqadd", F | B, Mapped, OLD, With(rules::old)),
    word("reqallow", F | B, Mapped, OLD, With(rules::old)),
    word("reqdel", F | B, Mapped, OLD, With(rules::old)),
    word("reqdeny", F | B, Mapped, OLD, With(rules::old)),
    word("reqiallow", F | B, Mapped, OLD, With(rules::old)),
    word("reqidel", F | B, Mapped, OLD, With(rules::old)),
    word("reqideny", F | B, Mapped, OLD, With(rules::old)),
    word("reqipass", F | B, Mapped, OLD, With(rules::old)),
    word("reqirep", F | B, Mapped, OLD, With(rules::old)),
    word("reqisetbe", F | B, Mapped, OLD, With(rules::old)),
    word("reqitarpit", F | B, Mapped, OLD, With(rules::old)),
    word("reqpass", F | B, Mapped, OLD, With(rules::old)),
    word("reqrep", F | B, Mapped, OLD, With(rules::old)),
    word("reqsetbe", F | B, Mapped, OLD, With(rules::old)),
    word("reqtarpit", F | B, Mapped, OLD, With(rules::old)),
    word("rspadd", F | B, Mapped, OLD, With(rules::old)),
    word("rspdel", F | B, Mapped, OLD, With(rules::old)),
    word("rspdeny", F | B, Mapped, OLD, With(rules::old)),
    word("rspidel", F | B, Mapped, OLD, With(rules::old)),
    word("rspideny", F | B, Mapped, OLD, With(rules::old)),
    word("rspirep", F | B, Mapped, OLD, With(rules::old)),
    word("rsprep", F | B, Mapped, OLD, With(rules::old)),
    word(
        "stats admin",
        F | B,
        Lost,
        "the page has no actions; the admin service disables and enables servers",
        With(|scope, arguments| {
            scope.proxy.stats.is_enabled = true;
            arguments.rest();
            Ok(())
        }),
    ),
    ours("stats auth", D | F | B, With(policy::stats)),
    word("stats enable", D | F | B, Mapped, STATS, With(policy::stats)),
    ours("stats hide-version", D | F | B, With(policy::stats)),
    not("stats http-request", F | B, Refused, "use stats auth, or http-request auth in a frontend of its own"),
    ours("stats realm", D | F | B, With(policy::stats)),
    ours("stats refresh", D | F | B, With(policy::stats)),
    ours("stats scope", D | F | B, With(policy::stats)),
    not("stats show-desc", D | F | B, Ignored, "the page is sluice's own"),
    not("stats show-legends", D | F | B, Ignored, "the page is sluice's own"),
    not("stats show-modules", D | F | B, Ignored, "the page is sluice's own"),
    not("stats show-node", D | F | B, Ignored, "the page is sluice's own"),
    not("stats show-version", D | F | B, Ignored, "the page is sluice's own"),
    word("stats uri", D | F | B, Mapped, STATS, With(policy::stats)),
    ours("stick match", B, With(policy::stick)),
    ours("stick on", B, With(policy::stick)),
    ours("stick store-request", B, With(policy::stick)),
    ours("stick store-response", B, With(policy::stick)),
    ours("stick-table", F | B, With(policy::stick_table)),
    not("tcp-check comment", D | B, Ignored, "a description"),
    not("tcp-check connect", D | B, Lost, TCP_CHECK),
    not("tcp-check expect", D | B, Lost, TCP_CHECK),
    not("tcp-check send", D | B, Lost, TCP_CHECK),
    not("tcp-check send-binary", D | B, Lost, TCP_CHECK),
    not("tcp-check send-binary-lf", D | B, Lost, TCP_CHECK),
    not("tcp-check send-lf", D | B, Lost, TCP_CHECK),
    not("tcp-check set-var", D | B, Lost, TCP_CHECK),
    not("tcp-check set-var-fmt", D | B, Lost, TCP_CHECK),
    not("tcp-check unset-var", D | B, Lost, TCP_CHECK),
    ours("tcp-request connection", D | F, With(rules::rule)),
    ours("tcp-request content", D | F | B, With(rules::rule)),
    not("tcp-request inspect-delay", D | F | B, Ignored, "rules are evaluated when the head has been read"),
    ours("tcp-request session", D | F, With(rules::rule)),
    ours("tcp-response content", D | B, With(rules::rule)),
    not("tcp-response inspect-delay", D | B, Ignored, "rules are evaluated when the head has been read"),
    ours("timeout check", D | B, Timeout(|timeouts| &mut timeouts.check)),
    word(
        "timeout client",
        D | F,
        Mapped,
        "for the head of a request; bodies have timeout server",
        Timeout(|timeouts| &mut timeouts.client),
    ),
    word(
        "timeout client-fin",
        D | F,
        Lost,
        "other timeouts apply to half-closed connections",
        Timeout(|timeouts| &mut timeouts.client_fin),
    ),
    not("timeout client-hs", D | F, Mapped, "https.handshakeTimeout"),
    ours("timeout connect", D | B, Timeout(|timeouts| &mut timeouts.connect)),
    word(
        "timeout http-keep-alive",
        D | F | B,
        Mapped,
        "server.idleTimeout",
        Timeout(|timeouts| &mut timeouts.http_keep_alive),
    ),
    ours("timeout http-request", D | F | B, Timeout(|timeouts| &mut timeouts.http_request)),
    ours("timeout queue", D | B, Timeout(|timeouts| &mut timeouts.queue)),
    ours("timeout server", D | B, Timeout(|timeouts| &mut timeouts.server)),
    word(
        "timeout server-fin",
        D | B,
        Lost,
        "other timeouts apply to half-closed connections",
        Timeout(|timeouts| &mut timeouts.server_fin),
    ),
    word("timeout tarpit", D | F | B, Lost, "the response comes at once", Timeout(|timeouts| &mut timeouts.tarpit)),
    ours("timeout tunnel", D | B, Timeout(|timeouts| &mut timeouts.tunnel)),
    word("clitimeout", D | F, Mapped, "timeout client", Timeout(|timeouts| &mut timeouts.client)),
    word("contimeout", D | B, Mapped, "timeout connect", Timeout(|timeouts| &mut timeouts.connect)),
    word("srvtimeout", D | B, Mapped, "timeout server", Timeout(|timeouts| &mut timeouts.server)),
    ours("use-server", B, With(rules::use_server)),
    ours("use_backend", F, With(rules::use_backend)),
];
