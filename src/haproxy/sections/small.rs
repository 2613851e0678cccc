//! The sections `userlist`, `resolvers`, `crt-store` and `http-errors`.

use super::arguments::Arguments;
use crate::haproxy::keyword::Treatment::{self, Honoured, Ignored, Lost, Mapped};
use crate::haproxy::model::{
    CrtStore, ErrorResponse, ErrorSource, HttpErrors, Model, Resolvers, StoredCertificate, UserCredential, Userlist,
};
use crate::haproxy::position::Fault;

/// A keyword of a small section.
pub(in super::super) struct SmallWord {
    pub(in super::super) section: &'static str,
    pub(in super::super) name: &'static str,
    pub(in super::super) treatment: Treatment,
    pub(in super::super) reason: &'static str,
}

const fn word(section: &'static str, name: &'static str, treatment: Treatment, reason: &'static str) -> SmallWord {
    SmallWord { section, name, treatment, reason }
}

const RESOLVER: &str = "names are resolved by the system's resolver";

/// All keywords of small sections.
pub(in super::super) const SMALL_WORDS: &[SmallWord] = &[
    word("userlist", "group", Honoured, ""),
    word("userlist", "user", Honoured, ""),
    word("resolvers", "accepted_payload_size", Ignored, RESOLVER),
    word("resolvers", "hold", Mapped, "server.dnsRefresh"),
    word("resolvers", "nameserver", Mapped, RESOLVER),
    word("resolvers", "parse-resolv-conf", Mapped, RESOLVER),
    word("resolvers", "resolve_retries", Mapped, RESOLVER),
    word("resolvers", "timeout", Mapped, RESOLVER),
    word("crt-store", "crt-base", Honoured, ""),
    word("crt-store", "key-base", Honoured, ""),
    word("crt-store", "load", Honoured, ""),
    word("http-errors", "errorfile", Honoured, ""),
];

/// Begins a section.
pub(super) fn begin(model: &mut Model, section: &str, name: String) {
    match section {
        "userlist" => model.userlists.push(Userlist { name, ..Userlist::default() }),
        "resolvers" => model.resolvers.push(Resolvers { name, ..Resolvers::default() }),
        "crt-store" => model.crt_stores.push(CrtStore { name, ..CrtStore::default() }),
        "http-errors" => model.http_errors.push(HttpErrors { name, ..HttpErrors::default() }),
        _ => {}
    }
}

/// Parses a line of a small section; its keyword is in the table.
pub(super) fn read(
    model: &mut Model,
    section: &str,
    keyword: &str,
    arguments: &mut Arguments<'_>,
) -> Result<Option<(Treatment, String)>, Fault> {
    match section {
        "userlist" => {
            if let Some(list) = model.userlists.last_mut() {
                userlist(list, keyword, arguments)?;
            }
        }
        "resolvers" => {
            if let Some(resolvers) = model.resolvers.last_mut() {
                resolver(resolvers, keyword, arguments)?;
            }
        }
        "crt-store" => {
            return model.crt_stores.last_mut().map_or(Ok(None), |store| certificate(store, keyword, arguments));
        }
        "http-errors" => {
            if let Some(group) = model.http_errors.last_mut() {
                let status = status(arguments)?;
                let source = ErrorSource::RawFile(arguments.text("a file")?);
                group.errors.push(ErrorResponse { status, source, at: arguments.at });
                arguments.finish()?;
            }
        }
        _ => {}
    }
    Ok(None)
}

/// The status of an error response.
pub(super) fn status(arguments: &mut Arguments<'_>) -> Result<u16, Fault> {
    let word = arguments.expect("a status")?;
    let status = word.text.parse().ok().filter(|status| (200..=599).contains(status));
    status.ok_or_else(|| Fault::new(word.at, format!("{:?} is no status from 200 to 599", word.text)))
}

fn userlist(list: &mut Userlist, keyword: &str, arguments: &mut Arguments<'_>) -> Result<(), Fault> {
    let name = arguments.text("a name")?;
    let split = |text: &str| text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    if keyword == "group" {
        let users = if arguments.accept("users") { split(&arguments.text("users")?) } else { Vec::new() };
        list.groups.push((name, users));
        return arguments.finish();
    }
    let mut user = UserCredential { name, password: None, is_clear: false, groups: Vec::new() };
    while let Some(word) = arguments.next() {
        match word.text.as_str() {
            "password" => user.password = Some(arguments.text("a hash of a password")?),
            "insecure-password" => {
                user.password = Some(arguments.text("a password")?);
                user.is_clear = true;
            }
            "groups" => user.groups.extend(split(&arguments.text("groups")?)),
            // The word may be a password, so it is not shown.
            _ => return Err(Fault::new(word.at, "no word of user; expected password, insecure-password or groups")),
        }
    }
    list.users.push(user);
    Ok(())
}

fn resolver(resolvers: &mut Resolvers, keyword: &str, arguments: &mut Arguments<'_>) -> Result<(), Fault> {
    match keyword {
        "nameserver" => {
            let pair = (arguments.text("a name")?, arguments.text("an address")?);
            resolvers.nameservers.push(pair);
        }
        "parse-resolv-conf" => resolvers.uses_resolv_conf = true,
        "resolve_retries" => resolvers.retries = Some(arguments.number("a number of tries")?),
        "hold" | "timeout" => {
            let name = format!("{keyword} {}", arguments.text("what the time is for")?);
            let time = arguments.time()?;
            resolvers.times.insert(name, time);
        }
        _ => drop(arguments.rest()),
    }
    arguments.finish()
}

fn certificate(
    store: &mut CrtStore,
    keyword: &str,
    arguments: &mut Arguments<'_>,
) -> Result<Option<(Treatment, String)>, Fault> {
    match keyword {
        "crt-base" => store.crt_base = Some(arguments.text("a folder")?),
        "key-base" => store.key_base = Some(arguments.text("a folder")?),
        _ => {
            let mut certificate = StoredCertificate::default();
            let mut lost = Vec::new();
            while let Some(word) = arguments.next() {
                let value = arguments.text("a value")?;
                match word.text.as_str() {
                    "crt" => certificate.crt = value,
                    "key" => certificate.key = Some(value),
                    "alias" => certificate.alias = Some(value),
                    "ocsp" | "issuer" | "sctl" | "ocsp-update" | "jwt" | "generate-dummy" | "domains" => {
                        lost.push(word.text.as_str());
                    }
                    other => {
                        let problem = format!("{other:?} is no word of load; expected crt, key or alias");
                        return Err(Fault::new(word.at, problem));
                    }
                }
            }
            if certificate.crt.is_empty() {
                return Err(Fault::new(arguments.at, "expected crt and a file"));
            }
            store.certificates.push(certificate);
            if !lost.is_empty() {
                return Ok(Some((Lost, format!("{} is not read", lost.join(", ")))));
            }
        }
    }
    arguments.finish().map(|()| None)
}
