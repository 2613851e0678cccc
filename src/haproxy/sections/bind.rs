//! The parameters of `bind`.

use super::arguments::{ParameterWord, mapped, not, set_text as text, told, word};
use crate::haproxy::keyword::Treatment::{Ignored, Lost, Mapped, Refused};
use crate::haproxy::model::{Bind, BindAddress, ClientVerify};

fn version(field: &mut Option<String>, value: &str) -> Result<(), String> {
    if !["SSLv3", "TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3"].contains(&value) {
        return Err(format!("{value:?} is no version; expected TLSv1.2 or TLSv1.3"));
    }
    text(field, value)
}

/// Excludes a version at the lower end, which is the usual meaning of `no-tlsv11`.
fn above(bind: &mut Bind, minimum: &str) -> Result<(), String> {
    if bind.tls_min.as_deref().is_none_or(|current| current < minimum) {
        bind.tls_min = Some(minimum.to_owned());
    }
    Ok(())
}

fn only(bind: &mut Bind, version: &str) -> Result<(), String> {
    bind.tls_min = Some(version.to_owned());
    bind.tls_max = Some(version.to_owned());
    Ok(())
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{value:?} is no number"))
}

fn dual_stack(bind: &mut Bind, on: bool) -> Result<(), String> {
    for address in &mut bind.addresses {
        if let BindAddress::Inet { dual_stack, .. } = address {
            *dual_stack = Some(on);
        }
    }
    Ok(())
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

const OPENSSL: &str = "rustls has no such setting";
const OLD_TLS: &str = "rustls supports TLS 1.2 and 1.3 only";
const THREADS: &str = "every worker listens on every address";
const QUIC: &str = "sluice does not support QUIC";

/// All parameters of `bind`.
pub(in super::super) const BIND_WORDS: &[ParameterWord<Bind>] = &[
    not("accept-netscaler-cip", 1, Refused, "sluice reads the PROXY protocol only"),
    word("accept-proxy", 0, |bind, _| {
        bind.accept_proxy = true;
        Ok(())
    }),
    not("allow-0rtt", 0, Lost, "requests in early data are not accepted"),
    mapped("alpn", 1, "http/1.1 is offered; h2 is omitted", |bind, value| {
        bind.alpn = list(value);
        Ok(())
    }),
    told("backlog", 1, Mapped, "4096, or what the kernel allows", |bind, value| {
        bind.backlog = Some(number(value)?);
        Ok(())
    }),
    word("ca-file", 1, |bind, value| text(&mut bind.ca_file, value)),
    not("ca-ignore-err", 1, Lost, "a chain with any error is refused"),
    not("ca-sign-file", 1, Refused, "sluice does not generate certificates"),
    not("ca-sign-pass", 1, Refused, "sluice does not generate certificates"),
    word("ca-verify-file", 1, |bind, value| text(&mut bind.ca_file, value)),
    not("cc", 1, Lost, "congestion control is the system's"),
    told("ciphers", 1, Mapped, "rustls's own suites, all of which are safe", |bind, value| {
        text(&mut bind.ciphers, value)
    }),
    told("ciphersuites", 1, Mapped, "rustls's own suites, all of which are safe", |bind, value| {
        text(&mut bind.ciphersuites, value)
    }),
    not("client-sigalgs", 1, Ignored, OPENSSL),
    told("crl-file", 1, Refused, "sluice does not check revocation lists", |bind, value| {
        text(&mut bind.crl_file, value)
    }),
    word("crt", 1, |bind, value| {
        bind.certificates.push(value.to_owned());
        Ok(())
    }),
    not("crt-ignore-err", 1, Lost, "a certificate with any error is refused"),
    told("crt-list", 1, Mapped, "names are accepted; certificates have no settings of their own", |bind, value| {
        bind.certificate_lists.push(value.to_owned());
        Ok(())
    }),
    not("curves", 1, Ignored, OPENSSL),
    word("default-crt", 1, |bind, value| {
        bind.certificates.insert(0, value.to_owned());
        Ok(())
    }),
    told("defer-accept", 0, Mapped, "server.deferAccept", |bind, _| {
        bind.defer_accept = true;
        Ok(())
    }),
    not("ecdhe", 1, Ignored, OPENSSL),
    not("ech", 1, Lost, OPENSSL),
    not("expose-fd", 1, Ignored, "descriptors are handed over by sluice's own upgrade"),
    not("force-sslv3", 0, Refused, OLD_TLS),
    not("force-tlsv10", 0, Refused, OLD_TLS),
    not("force-tlsv11", 0, Refused, OLD_TLS),
    word("force-tlsv12", 0, |bind, _| only(bind, "TLSv1.2")),
    word("force-tlsv13", 0, |bind, _| only(bind, "TLSv1.3")),
    not("generate-certificates", 0, Refused, "sluice does not generate certificates"),
    told("gid", 1, Ignored, "sluice listens on IP addresses only", |bind, value| text(&mut bind.unix_group, value)),
    told("group", 1, Ignored, "sluice listens on IP addresses only", |bind, value| text(&mut bind.unix_group, value)),
    not("guid-prefix", 1, Ignored, "listeners have no identifiers"),
    not("id", 1, Ignored, "listeners have no numbers"),
    not("idle-ping", 1, Ignored, "HTTP/1.1 has no pings"),
    told("interface", 1, Refused, "sluice listens on addresses, whatever the interface", |bind, value| {
        text(&mut bind.interface, value)
    }),
    not("ktls", 1, Ignored, OPENSSL),
    not("label", 1, Ignored, "listeners have no labels"),
    not("level", 1, Ignored, "there is no command socket"),
    told("maxconn", 1, Lost, "server.maxConnections holds for all addresses", |bind, value| {
        bind.maxconn = Some(number(value)?);
        Ok(())
    }),
    told("mode", 1, Ignored, "sluice listens on IP addresses only", |bind, value| {
        bind.unix_mode = Some(u32::from_str_radix(value, 8).map_err(|_| format!("{value:?} is no octal mode"))?);
        Ok(())
    }),
    not("mss", 1, Lost, "segment sizes are the system's"),
    told("name", 1, Ignored, "listeners have no names", |bind, value| text(&mut bind.name, value)),
    not("namespace", 1, Refused, "sluice listens in its own network namespace"),
    not("nbconn", 1, Ignored, "sluice does not open reverse connections"),
    not("nice", 1, Ignored, "sluice serves requests in the order of their events"),
    word("no-alpn", 0, |bind, _| {
        bind.alpn.clear();
        Ok(())
    }),
    not("no-ca-names", 0, Lost, OPENSSL),
    not("no-sslv3", 0, Ignored, OLD_TLS),
    word("no-strict-sni", 0, |bind, _| {
        bind.strict_sni = false;
        Ok(())
    }),
    not("no-tls-tickets", 0, Lost, "tickets are always given, with keys that change"),
    not("no-tlsv10", 0, Ignored, OLD_TLS),
    not("no-tlsv11", 0, Ignored, OLD_TLS),
    word("no-tlsv12", 0, |bind, _| above(bind, "TLSv1.3")),
    word("no-tlsv13", 0, |bind, _| version(&mut bind.tls_max, "TLSv1.2")),
    not("npn", 1, Ignored, "ALPN has replaced it"),
    not("prefer-client-ciphers", 0, Ignored, "sluice prefers its own order"),
    not("proto", 1, Refused, "sluice uses HTTP/1.1 to clients; other protocols cannot be forced"),
    not("process", 1, Ignored, THREADS),
    not("quic-cc-algo", 1, Ignored, QUIC),
    not("quic-force-retry", 0, Ignored, QUIC),
    not("quic-socket", 1, Ignored, QUIC),
    not("severity-output", 1, Ignored, "there is no command socket"),
    not("shards", 1, Ignored, THREADS),
    not("sigalgs", 1, Ignored, OPENSSL),
    word("ssl", 0, |bind, _| {
        bind.is_tls = true;
        Ok(())
    }),
    word("ssl-max-ver", 1, |bind, value| version(&mut bind.tls_max, value)),
    mapped("ssl-min-ver", 1, "TLS 1.2 at least", |bind, value| version(&mut bind.tls_min, value)),
    word("strict-sni", 0, |bind, _| {
        bind.strict_sni = true;
        Ok(())
    }),
    not("tcp-md5sig", 1, Refused, "sluice does not sign TCP segments"),
    not("tcp-ss", 1, Ignored, "saved SYNs are not available"),
    not("tcp-ut", 1, Lost, "the user timeout is the system's"),
    not("tfo", 0, Lost, "fast open is not asked for"),
    not("thread", 1, Ignored, THREADS),
    not("tls-ticket-keys", 1, Lost, "keys of tickets are made by the process and change"),
    not("tls-tickets", 0, Ignored, "tickets are always given"),
    not("transparent", 0, Refused, "sluice listens on its own addresses"),
    told("uid", 1, Ignored, "sluice listens on IP addresses only", |bind, value| text(&mut bind.unix_user, value)),
    told("user", 1, Ignored, "sluice listens on IP addresses only", |bind, value| text(&mut bind.unix_user, value)),
    word("v4v6", 0, |bind, _| dual_stack(bind, true)),
    word("v6only", 0, |bind, _| dual_stack(bind, false)),
    word("verify", 1, |bind, value| {
        bind.verify = match value {
            "none" => ClientVerify::None,
            "optional" => ClientVerify::Optional,
            "required" => ClientVerify::Required,
            other => return Err(format!("{other:?} is not none, optional or required")),
        };
        Ok(())
    }),
];
