//! The parameters of `server`, `default-server` and `server-template`.

use super::arguments::{ParameterWord, mapped, not, set_text as text, told, word};
use crate::haproxy::keyword::Treatment::{Ignored, Lost, Mapped, Refused};
use crate::haproxy::model::{OnError, Server};
use crate::haproxy::units::{Unit, time};
use std::time::Duration;

fn number<T: std::str::FromStr>(field: &mut T, value: &str) -> Result<(), String> {
    *field = value.parse().map_err(|_| format!("{value:?} is no number"))?;
    Ok(())
}

fn some_number<T: std::str::FromStr>(field: &mut Option<T>, value: &str) -> Result<(), String> {
    *field = Some(value.parse().map_err(|_| format!("{value:?} is no number"))?);
    Ok(())
}

fn delay(value: &str) -> Result<Duration, String> {
    time(value, Unit::Millis).map(|(time, _)| time).ok_or_else(|| format!("{value:?} is no time such as 2s"))
}

fn some_delay(field: &mut Option<Duration>, value: &str) -> Result<(), String> {
    *field = Some(delay(value)?);
    Ok(())
}

fn set<T>(field: &mut T, value: T) -> Result<(), String> {
    *field = value;
    Ok(())
}

fn weight(server: &mut Server, value: &str) -> Result<(), String> {
    let weight = value.parse().ok().filter(|weight| *weight <= 256);
    set(&mut server.weight, weight.ok_or_else(|| format!("{value:?} is no weight from 0 to 256"))?)
}

fn on_error(server: &mut Server, value: &str) -> Result<(), String> {
    server.on_error = match value {
        "fastinter" => OnError::FastInter,
        "fail-check" => OnError::FailCheck,
        "sudden-death" => OnError::SuddenDeath,
        "mark-down" => OnError::MarkDown,
        other => return Err(format!("{other:?} is not fastinter, fail-check, sudden-death or mark-down")),
    };
    Ok(())
}

const AGENT: &str = "sluice does not query agents; use the admin API";
const OPENSSL: &str = "rustls has no such setting";
const OLD_TLS: &str = "rustls supports TLS 1.2 and 1.3 only";

/// All parameters of `server`.
pub(in super::super) const SERVER_WORDS: &[ParameterWord<Server>] = &[
    told("addr", 1, Mapped, "checks use the address of requests; another address is lost", |server, value| {
        text(&mut server.check_address, value)
    }),
    not("agent-addr", 1, Lost, AGENT),
    not("agent-check", 0, Lost, AGENT),
    not("agent-inter", 1, Lost, AGENT),
    not("agent-port", 1, Lost, AGENT),
    not("agent-send", 1, Lost, AGENT),
    not("allow-0rtt", 0, Ignored, "early data is not sent"),
    mapped("alpn", 1, "http/1.1 is requested; h2 is omitted", |server, value| {
        set(&mut server.alpn, value.split(',').map(str::to_owned).collect())
    }),
    word("backup", 0, |server, _| set(&mut server.is_backup, true)),
    told(
        "ca-file",
        1,
        Mapped,
        "the attribute ca= of a backend: a file, and no folder; a changed file is read when the line changes",
        |server, value| text(&mut server.ca_file, value),
    ),
    not("cc", 1, Lost, "congestion control is the system's"),
    word("check", 0, |server, _| set(&mut server.is_checked, true)),
    not("check-alpn", 1, Ignored, "checks speak HTTP/1.1"),
    not("check-pool-conn-name", 1, Ignored, "checks have connections of their own"),
    not("check-proto", 1, Lost, "checks speak HTTP/1.1"),
    not("check-reuse-pool", 0, Ignored, "checks have connections of their own"),
    told("check-send-proxy", 0, Lost, "checks use the connection settings of requests", |server, _| {
        set(&mut server.check_send_proxy, true)
    }),
    told("check-sni", 1, Lost, "checks use the connection settings of requests", |server, value| {
        text(&mut server.check_sni, value)
    }),
    not("check-sni-auto", 0, Ignored, "the server name is always verified"),
    told("check-ssl", 0, Lost, "checks use the connection settings of requests", |server, _| {
        set(&mut server.check_tls, Some(true))
    }),
    not("check-via-socks4", 0, Lost, "sluice does not support SOCKS"),
    not("ciphers", 1, Ignored, "rustls chooses from its own"),
    not("ciphersuites", 1, Ignored, "rustls chooses from its own"),
    not("client-sigalgs", 1, Ignored, OPENSSL),
    word("cookie", 1, |server, value| text(&mut server.cookie, value)),
    told("crl-file", 1, Refused, "sluice does not check revocation lists", |server, value| {
        text(&mut server.crl_file, value)
    }),
    told("crt", 1, Refused, "server.backendTls has the certificate for all servers", |server, value| {
        text(&mut server.certificate, value)
    }),
    not("curves", 1, Ignored, OPENSSL),
    word("disabled", 0, |server, _| set(&mut server.is_disabled, true)),
    told("downinter", 1, Lost, "checks come at one interval", |server, value| {
        some_delay(&mut server.down_inter, value)
    }),
    word("enabled", 0, |server, _| set(&mut server.is_disabled, false)),
    told("error-limit", 1, Mapped, "health.maxFailures of other drivers", |server, value| {
        number(&mut server.error_limit, value)
    }),
    word("fall", 1, |server, value| number(&mut server.fall, value)),
    told("fastinter", 1, Lost, "checks come at one interval", |server, value| {
        some_delay(&mut server.fast_inter, value)
    }),
    not("force-sslv3", 0, Refused, OLD_TLS),
    not("force-tlsv10", 0, Refused, OLD_TLS),
    not("force-tlsv11", 0, Refused, OLD_TLS),
    not("force-tlsv12", 0, Lost, "TLS 1.2 and 1.3 are offered"),
    not("force-tlsv13", 0, Lost, "TLS 1.2 and 1.3 are offered"),
    not("from", 1, Refused, "write the words of a named default-server at the server"),
    not("guid", 1, Ignored, "servers have no identifiers"),
    not("hash-key", 1, Lost, "the key of a server's place is its endpoint"),
    not("healthcheck", 1, Lost, "healthcheck sections are not supported"),
    not("id", 1, Ignored, "servers have no numbers; a server is its endpoint"),
    not("idle-ping", 1, Ignored, "HTTP/1.1 has no pings"),
    mapped(
        "init-addr",
        1,
        "a name that cannot be resolved makes the server unavailable until it can",
        |server, value| set(&mut server.init_addr, value.split(',').map(str::to_owned).collect()),
    ),
    not("init-state", 1, Lost, "a server is up until its first check says otherwise"),
    word("inter", 1, |server, value| set(&mut server.inter, delay(value)?)),
    not("ktls", 1, Ignored, OPENSSL),
    not("log-bufsize", 1, Ignored, "log servers are not supported"),
    not("log-proto", 1, Ignored, "log servers are not supported"),
    not("max-reuse", 1, Lost, "a connection is used as long as its server keeps it"),
    not("interface", 1, Lost, "the address to connect from is the system's choice"),
    word("maxconn", 1, |server, value| number(&mut server.maxconn, value)),
    told("maxqueue", 1, Mapped, "the backend has one queue, as long as those of all its servers", |server, value| {
        number(&mut server.maxqueue, value)
    }),
    told("minconn", 1, Lost, "the limit does not depend on the load", |server, value| {
        number(&mut server.minconn, value)
    }),
    not("name", 1, Refused, "write the words of a named default-server at the server"),
    not("namespace", 1, Refused, "sluice connects from its own network namespace"),
    not("no-agent-check", 0, Ignored, AGENT),
    word("no-backup", 0, |server, _| set(&mut server.is_backup, false)),
    word("no-check", 0, |server, _| set(&mut server.is_checked, false)),
    told("no-check-send-proxy", 0, Ignored, "checks use the connection settings of requests", |server, _| {
        set(&mut server.check_send_proxy, false)
    }),
    not("no-check-reuse-pool", 0, Ignored, "checks have connections of their own"),
    not("no-check-sni-auto", 0, Ignored, "the server name is always verified"),
    told("no-check-ssl", 0, Lost, "checks use the connection settings of requests", |server, _| {
        set(&mut server.check_tls, Some(false))
    }),
    not("no-renegotiate", 0, Ignored, "rustls does not renegotiate"),
    word("no-send-proxy", 0, |server, _| set(&mut server.send_proxy, None)),
    word("no-send-proxy-v2", 0, |server, _| set(&mut server.send_proxy, None)),
    not("no-send-proxy-v2-ssl", 0, Ignored, "this version of the protocol is not sent"),
    not("no-send-proxy-v2-ssl-cn", 0, Ignored, "this version of the protocol is not sent"),
    not("no-sni-auto", 0, Ignored, "the server name is verified"),
    word("no-ssl", 0, |server, _| set(&mut server.is_tls, false)),
    not("no-ssl-reuse", 0, Lost, "sessions are resumed"),
    not("no-sslv3", 0, Ignored, OLD_TLS),
    not("no-tfo", 0, Ignored, "fast open is not asked for"),
    not("no-tls-tickets", 0, Lost, "sessions are resumed"),
    not("no-tlsv10", 0, Ignored, OLD_TLS),
    not("no-tlsv11", 0, Ignored, OLD_TLS),
    not("no-tlsv12", 0, Lost, "TLS 1.2 and 1.3 are offered"),
    not("no-tlsv13", 0, Lost, "TLS 1.2 and 1.3 are offered"),
    word("no-verifyhost", 0, |server, _| set(&mut server.verify_host, None)),
    not("non-stick", 0, Lost, "every server can be in a stick table"),
    not("npn", 1, Ignored, "ALPN has replaced it"),
    told(
        "observe",
        1,
        Mapped,
        "a server that cannot be reached is not used for server.deadBackendTTL",
        |server, value| {
            server.observe_layer7 = Some(match value {
                "layer4" => false,
                "layer7" => true,
                other => return Err(format!("{other:?} is neither layer4 nor layer7")),
            });
            Ok(())
        },
    ),
    told("on-error", 1, Mapped, "a server that cannot be reached is not used for server.deadBackendTTL", on_error),
    told("on-marked-down", 1, Lost, "requests and tunnels in progress are not ended", |server, value| match value {
        "shutdown-sessions" => set(&mut server.shutdown_when_down, true),
        other => Err(format!("{other:?} is not shutdown-sessions")),
    }),
    not("on-marked-up", 1, Lost, "sessions at backup servers continue"),
    not("pool-conn-name", 1, Ignored, "connections are pooled by endpoint"),
    not("pool-low-conn", 1, Ignored, "every worker has a pool of its own"),
    told("pool-max-conn", 1, Mapped, "server.maxSockets holds for all servers", |server, value| {
        some_number(&mut server.pool_max, value)
    }),
    told("pool-purge-delay", 1, Mapped, "server.idleTimeout holds for all servers", |server, value| {
        some_delay(&mut server.pool_purge, value)
    }),
    told("port", 1, Mapped, "checks use the address of requests; another port is lost", |server, value| {
        some_number(&mut server.check_port, value)
    }),
    not("proto", 1, Refused, "sluice uses HTTP/1.1 to servers; other protocols cannot be forced"),
    not("proxy-v2-options", 1, Lost, "only addresses are sent"),
    not("quic-cc-algo", 1, Ignored, "sluice does not support QUIC"),
    told(
        "redir",
        1,
        Refused,
        "the request would go to the server itself; write http-request redirect",
        |server, value| text(&mut server.redir, value),
    ),
    not("renegotiate", 0, Ignored, "rustls does not renegotiate"),
    not("resolve-net", 1, Lost, "all addresses of a name are equal"),
    not("resolve-opts", 1, Lost, "all addresses of a name are equal"),
    word("resolve-prefer", 1, |server, value| match value {
        "ipv4" => set(&mut server.resolve_prefer, Some(4)),
        "ipv6" => set(&mut server.resolve_prefer, Some(6)),
        other => Err(format!("{other:?} is neither ipv4 nor ipv6")),
    }),
    mapped("resolvers", 1, "names are resolved periodically by the system's resolver", |server, value| {
        text(&mut server.resolvers, value)
    }),
    word("rise", 1, |server, value| number(&mut server.rise, value)),
    word("send-proxy", 0, |server, _| set(&mut server.send_proxy, Some(1))),
    word("send-proxy-v2", 0, |server, _| set(&mut server.send_proxy, Some(2))),
    mapped("send-proxy-v2-ssl", 0, "version 2 without TLS information", |server, _| {
        set(&mut server.send_proxy, Some(2))
    }),
    mapped("send-proxy-v2-ssl-cn", 0, "version 2 without TLS information", |server, _| {
        set(&mut server.send_proxy, Some(2))
    }),
    not("shard", 1, Ignored, "there are no peers"),
    not("sigalgs", 1, Ignored, OPENSSL),
    word("slowstart", 1, |server, value| some_delay(&mut server.slow_start, value)),
    mapped(
        "sni",
        1,
        "a constant; instead of a name of the request, that of the server is asked for",
        |server, value| text(&mut server.sni, value),
    ),
    not("sni-auto", 0, Ignored, "the server name is always verified"),
    not("socks4", 1, Refused, "sluice does not support SOCKS"),
    not("source", 1, Lost, "the address to connect from is the system's choice"),
    word("ssl", 0, |server, _| set(&mut server.is_tls, true)),
    not("ssl-max-ver", 1, Lost, "TLS 1.2 and 1.3 are offered"),
    mapped("ssl-min-ver", 1, "TLS 1.2 at least", |_, _| Ok(())),
    not("ssl-reuse", 0, Ignored, "sessions are resumed"),
    not("stick", 0, Ignored, "every server can be in a stick table"),
    not("strict-maxconn", 0, Ignored, "pooled connections are included"),
    not("tcp-md5sig", 1, Refused, "sluice does not sign TCP segments"),
    not("tcp-ut", 1, Lost, "the user timeout is the system's"),
    not("tfo", 0, Lost, "fast open is not asked for"),
    not("tls-tickets", 0, Ignored, "sessions are resumed"),
    told("track", 1, Lost, "the health of a server is its own", |server, value| text(&mut server.track, value)),
    not("usesrc", 1, Refused, "sluice does not connect from its clients' addresses"),
    word("verify", 1, |server, value| match value {
        "none" => set(&mut server.verify, Some(false)),
        "required" => set(&mut server.verify, Some(true)),
        other => Err(format!("{other:?} is neither none nor required")),
    }),
    word("verifyhost", 1, |server, value| text(&mut server.verify_host, value)),
    word("weight", 1, weight),
    mapped("ws", 1, "WebSocket goes over HTTP/1.1", |_, _| Ok(())),
];
