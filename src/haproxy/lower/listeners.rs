//! The `bind` lines.

use super::Lowering;
use crate::haproxy::keyword::Treatment::{Lost, Refused, Wrong};
use crate::haproxy::model::{Bind, BindAddress, ClientVerify, StoredCertificate};
use crate::haproxy::position::Position;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedListener {
    /// The address.
    pub address: SocketAddr,
    /// The frontend, as an index of the proxies.
    pub frontend: usize,
    /// Whether every connection begins with the PROXY protocol.
    pub accepts_proxy: bool,
    /// TLS settings; `None` for plaintext.
    pub tls: Option<PlannedTls>,
    /// The position of its line.
    pub at: Position,
}

/// A file of a certificate and its key, or a folder of such files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedCertificate {
    /// The file or folder.
    pub path: PathBuf,
    /// The file of the key, where `crt-store` names one.
    pub key: Option<PathBuf>,
}

/// TLS at a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedTls {
    /// The certificates. The first one is shown where no name fits.
    pub certificates: Vec<PlannedCertificate>,
    /// Lists of certificates with filters (`crt-list`).
    pub lists: Vec<PathBuf>,
    /// Whether a client whose name has no certificate is refused.
    pub strict_sni: bool,
    /// The lowest version, such as `TLSv1.2`.
    pub lowest: Option<String>,
    /// The highest version.
    pub highest: Option<String>,
    /// The file of the authorities of client certificates, and whether clients must have one.
    pub client_authorities: Option<(PathBuf, bool)>,
}

impl Lowering<'_, '_> {
    /// The listeners of all frontends.
    pub(super) fn listeners(&mut self) -> Vec<PlannedListener> {
        let model = self.model;
        let mut listeners: Vec<PlannedListener> = Vec::new();
        let written: HashSet<SocketAddr> = model
            .proxies
            .iter()
            .flat_map(|proxy| &proxy.binds)
            .flat_map(addresses)
            .map(|(address, _)| address)
            .collect();
        for (index, proxy) in model.proxies.iter().enumerate() {
            if !proxy.is_frontend() || proxy.is_disabled {
                continue;
            }
            for bind in &proxy.binds {
                let Some(tls) = self.bind(bind) else { continue };
                bind.addresses.iter().filter_map(unserved).for_each(|note| self.say(bind.at, "bind", Refused, note));
                for (address, is_dual) in addresses(bind) {
                    let mut add = |address| {
                        let accepts_proxy = bind.accept_proxy;
                        let tls = tls.clone();
                        listeners.push(PlannedListener { address, frontend: index, accepts_proxy, tls, at: bind.at });
                    };
                    add(address);
                    let four = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
                    if is_dual && !written.contains(&four) {
                        add(four);
                    }
                }
            }
            if proxy.binds.is_empty() {
                self.say(proxy.at, &proxy.name, Lost, "no bind line: nothing leads to this frontend");
            }
        }
        self.without_duplicates(&mut listeners);
        listeners
    }

    fn without_duplicates(&mut self, listeners: &mut Vec<PlannedListener>) {
        let mut seen = HashSet::new();
        let mut twice = Vec::new();
        listeners.retain(|listener| {
            let is_first = seen.insert(listener.address);
            if !is_first {
                twice.push((listener.at, listener.address));
            }
            is_first
        });
        for (at, address) in twice {
            self.say(at, "bind", Refused, format!("{address} once more; HAProxy shares it between two frontends"));
        }
    }

    /// The TLS settings of a line; `None` if the line cannot be served.
    fn bind(&mut self, bind: &Bind) -> Option<Option<PlannedTls>> {
        let Bind {
            at,
            addresses: _,
            name: _,
            is_tls,
            certificates,
            certificate_lists,
            strict_sni,
            // HTTP/1.1 is offered, whatever the line asks for.
            alpn: _,
            ciphers: _,
            ciphersuites: _,
            tls_min,
            tls_max,
            ca_file,
            crl_file,
            verify,
            accept_proxy: _,
            defer_accept: _,
            maxconn: _,
            backlog: _,
            interface,
            unix_mode: _,
            unix_user: _,
            unix_group: _,
        } = bind;
        // An unsupported parameter of a listener is refused by its keyword; with --lossy the listener is left out.
        if interface.is_some() {
            return None;
        }
        if !is_tls {
            return Some(None);
        }
        if crl_file.is_some() {
            return None;
        }
        let client_authorities = match (verify, ca_file) {
            (ClientVerify::None, _) => None,
            (_, None) => {
                self.say(
                    *at,
                    "verify",
                    Refused,
                    "the authorities that sign clients' certificates are missing (ca-file)",
                );
                return None;
            }
            (verify, Some(file)) => {
                Some((self.in_folder(&self.model.global.ca_base, file), *verify == ClientVerify::Required))
            }
        };
        if certificates.is_empty() && certificate_lists.is_empty() {
            self.say(*at, "ssl", Refused, "no certificate (crt)");
            return None;
        }
        let certificates = certificates.iter().map(|certificate| self.certificate(certificate, *at));
        let certificates = certificates.collect::<Option<_>>()?;
        let option = |name: &str| self.model.global.tls_bind_defaults.get(name).cloned();
        Some(Some(PlannedTls {
            certificates,
            lists: certificate_lists.iter().map(PathBuf::from).collect(),
            strict_sni: *strict_sni,
            lowest: tls_min.clone().or_else(|| default_version(option("options").as_deref(), "ssl-min-ver")),
            highest: tls_max.clone().or_else(|| default_version(option("options").as_deref(), "ssl-max-ver")),
            client_authorities,
        }))
    }

    /// A file, or `@STORE/NAME` of a `crt-store`, whose name is an alias or the file as its line has it.
    fn certificate(&mut self, name: &str, at: Position) -> Option<PlannedCertificate> {
        let global = &self.model.global;
        let Some((store, name)) = name.strip_prefix('@').and_then(|name| name.split_once('/')) else {
            return Some(PlannedCertificate { path: self.in_folder(&global.crt_base, name), key: None });
        };
        // Sections of one name are one store.
        let found = self.model.crt_stores.iter().filter(|known| known.name == store).find_map(|known| {
            let is_it = |stored: &&StoredCertificate| stored.alias.as_deref() == Some(name) || stored.crt == name;
            known.certificates.iter().find(is_it).map(|stored| (known, stored))
        });
        let Some((known, stored)) = found else {
            self.say(at, "crt", Wrong, format!("there is no certificate {name:?} in the crt-store {store:?}"));
            return None;
        };
        let crt_base = known.crt_base.clone().or_else(|| global.crt_base.clone());
        let key_base = known.key_base.clone().or_else(|| global.key_base.clone());
        let key = stored.key.as_ref().map(|key| self.in_folder(&key_base, key));
        Some(PlannedCertificate { path: self.in_folder(&crt_base, &stored.crt), key })
    }

    pub(super) fn in_folder(&self, folder: &Option<String>, file: &str) -> PathBuf {
        folder.as_deref().map_or_else(|| PathBuf::from(file), |folder| PathBuf::from(folder).join(file))
    }
}

/// Why no socket is made for an address; `None` if one is.
fn unserved(address: &BindAddress) -> Option<String> {
    Some(match address {
        BindAddress::Inet { .. } => return None,
        BindAddress::Name { host, .. } => format!("{host}: sluice listens at addresses; write that of the name"),
        BindAddress::Unix(path) => {
            format!("{path}: sluice serves no UNIX sockets; write an address of this machine, such as 127.0.0.1:8080")
        }
        BindAddress::Abstract(name) => {
            format!(
                "abns@{name}: sluice serves no UNIX sockets; write an address of this machine, such as 127.0.0.1:8080"
            )
        }
        BindAddress::Descriptor(number) => {
            format!("fd@{number}: sluice takes sockets over from systemd; write their address")
        }
    })
}

/// A version in `ssl-default-bind-options`.
fn default_version(options: Option<&str>, name: &str) -> Option<String> {
    let words: Vec<_> = options?.split_whitespace().collect();
    if let Some(at) = words.iter().position(|word| *word == name) {
        return words.get(at + 1).map(|version| (*version).to_owned());
    }
    let is_13_only = name == "ssl-min-ver" && words.contains(&"no-tlsv12");
    is_13_only.then(|| "TLSv1.3".to_owned())
}

/// The IP addresses of a line, and whether each accepts IPv4 too.
fn addresses(bind: &Bind) -> impl Iterator<Item = (SocketAddr, bool)> {
    bind.addresses.iter().flat_map(|address| {
        let (ip, ports, is_dual) = match address {
            BindAddress::Inet { ip, first, last, dual_stack } => {
                (*ip, *first..=*last, ip.is_ipv6() && ip.is_unspecified() && *dual_stack != Some(false))
            }
            #[expect(clippy::reversed_empty_ranges, reason = "there is no address")]
            _ => (Ipv4Addr::UNSPECIFIED.into(), 1..=0, false),
        };
        ports.map(move |port| (SocketAddr::new(ip, port), is_dual))
    })
}
