//! Settings in OpenSSL's terms: supported ones are mapped, for others a warning names the actual behaviour.

use super::raw::Field;
use crate::net::tls::{ServerSettings, Suites, Versions};
use rustls::CipherSuite;

const BOTH: &str = "TLS 1.2 and 1.3 are spoken";
const SAFE_SUITES: &str = "all suites of TLS 1.2 and 1.3 with forward secrecy and authenticated encryption";

/// OpenSSL's names of the supported suites, in order of preference.
const SUITES: &[(&str, CipherSuite)] = &[
    ("TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    ("TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
    ("TLS_CHACHA20_POLY1305_SHA256", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// The meaning of an OpenSSL option here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// It is always in effect.
    Holds,
    NoTls12,
    NoTls13,
    NoTickets,
    ServerOrder,
}

/// OpenSSL's options by name and bit.
const OPTIONS: &[(&str, u64, Meaning)] = &[
    ("SSL_OP_NO_SSLv2", 0x0100_0000, Meaning::Holds),
    ("SSL_OP_NO_SSLv3", 0x0200_0000, Meaning::Holds),
    ("SSL_OP_NO_TLSv1", 0x0400_0000, Meaning::Holds),
    ("SSL_OP_NO_TLSv1_1", 0x1000_0000, Meaning::Holds),
    ("SSL_OP_NO_TLSv1_2", 0x0800_0000, Meaning::NoTls12),
    ("SSL_OP_NO_TLSv1_3", 0x2000_0000, Meaning::NoTls13),
    ("SSL_OP_NO_COMPRESSION", 0x0002_0000, Meaning::Holds),
    ("SSL_OP_NO_RENEGOTIATION", 0x4000_0000, Meaning::Holds),
    ("SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION", 0x0001_0000, Meaning::Holds),
    ("SSL_OP_SINGLE_DH_USE", 0x0010_0000, Meaning::Holds),
    ("SSL_OP_SINGLE_ECDH_USE", 0x0008_0000, Meaning::Holds),
    ("SSL_OP_NO_TICKET", 0x0000_4000, Meaning::NoTickets),
    ("SSL_OP_CIPHER_SERVER_PREFERENCE", 0x0040_0000, Meaning::ServerOrder),
];

/// `secureProtocol`: the name of a method.
pub(super) fn read_protocol(field: &Field<'_>, settings: &mut ServerSettings) {
    let Some(name) = field.text() else { return };
    let method = name.strip_suffix("_method").map(|name| name.strip_suffix("_server").unwrap_or(name));
    match method {
        Some("TLS" | "SSLv23") => {}
        Some("TLSv1_2") => settings.versions = Versions::Tls12,
        Some("TLSv1_3") => settings.versions = Versions::Tls13,
        Some("TLSv1" | "TLSv1_1" | "SSLv2" | "SSLv3") => field.warn_instead(name, BOTH),
        _ => field.refuse("a method of OpenSSL's, such as \"TLS_method\" or \"TLSv1_2_method\""),
    }
}

/// `secureOptions`: a sum of bits, or a list of names.
pub(super) fn read_options(field: &Field<'_>, settings: &mut ServerSettings) {
    let mut meanings = Vec::new();
    let mut unknown = Vec::new();
    for item in field.items().unwrap_or_default() {
        match (item.value().and_then(serde_json::Value::as_u64), item.value().and_then(|value| value.as_str())) {
            (Some(bits), _) => {
                let known = OPTIONS.iter().filter(|(_, bit, _)| bits & bit != 0);
                meanings.extend(known.clone().map(|(.., meaning)| *meaning));
                let rest = known.fold(bits, |rest, (_, bit, _)| rest & !bit);
                if rest != 0 {
                    unknown.push(format!("{rest:#x}"));
                }
            }
            (None, Some(name)) => match OPTIONS.iter().find(|(known, ..)| *known == name) {
                Some((.., meaning)) => meanings.push(*meaning),
                None => unknown.push(name.to_owned()),
            },
            (None, None) => item.refuse("a number, or names of OpenSSL's options such as \"SSL_OP_NO_TLSv1_3\""),
        }
    }
    if !unknown.is_empty() {
        field.warn_instead(&unknown.join(", "), "these options mean nothing to rustls; its safe defaults hold");
    }
    settings.tickets &= !meanings.contains(&Meaning::NoTickets);
    settings.client_order &= !meanings.contains(&Meaning::ServerOrder);
    match (meanings.contains(&Meaning::NoTls12), meanings.contains(&Meaning::NoTls13)) {
        (false, false) => {}
        (true, false) if settings.versions != Versions::Tls12 => settings.versions = Versions::Tls13,
        (false, true) if settings.versions != Versions::Tls13 => settings.versions = Versions::Tls12,
        _ => field.refuse("options that leave one version of TLS"),
    }
}

/// `ciphers`: names of suites, separated by colons.
pub(super) fn read_ciphers(field: &Field<'_>, settings: &mut ServerSettings) {
    let Some(list) = field.text() else { return };
    let names = list.split([':', ',', ' ']).filter(|name| !name.is_empty());
    let find = |name: &str| SUITES.iter().find(|(known, _)| *known == name).map(|(_, suite)| *suite);
    let chosen: Vec<_> = names.clone().filter_map(find).collect();
    // Excluding a suite that is not supported needs no warning.
    let is_unknown = |name: &&str| find(name).is_none() && !name.starts_with(['!', '-']);
    let unknown: Vec<_> = names.filter(is_unknown).collect();
    let holds = if chosen.is_empty() { SAFE_SUITES } else { "the other suites of the list" };
    if !unknown.is_empty() {
        field.warn_instead(&unknown.join(":"), holds);
    }
    if !chosen.is_empty() {
        settings.suites = Suites::Chosen(chosen);
    }
}
