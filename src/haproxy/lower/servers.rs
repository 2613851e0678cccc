//! The members of a cluster, from the `server` lines of a backend.

use super::{Lowering, Servers};
use crate::cluster::BackendUrl;
use crate::haproxy::keyword::Treatment::{Lost, Mapped, Refused};
use crate::haproxy::model::{HostPort, Proxy, Server};
use crate::haproxy::serve::ServedServer;
use std::collections::HashSet;
use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;
use xxhash_rust::xxh64::xxh64;

impl Lowering<'_, '_> {
    /// The members of a backend, and their names, in the same order.
    pub(super) fn servers(&mut self, proxy: &Proxy) -> (Vec<BackendUrl>, Servers) {
        let (mut urls, mut servers) = (Vec::new(), Vec::new());
        let mut endpoints = HashSet::new();
        for server in &proxy.servers {
            let Some(text) = self.server(server) else { continue };
            self.check_target(server);
            let url = match BackendUrl::parse(&text) {
                Ok(url) => url,
                Err(problem) => {
                    self.refuse(server, format!("{}: {problem}", server.address.host));
                    continue;
                }
            };
            for (number, name) in names(server).into_iter().enumerate() {
                if number > 0 {
                    self.say(
                        server.id.at,
                        &name,
                        Mapped,
                        "one member with all addresses of the name stands for the servers of the template",
                    );
                    break;
                }
                if !endpoints.insert(url.endpoint().clone()) {
                    let note = "a second server at the same address: both count as one for limits and checks";
                    self.say(server.id.at, &name, Mapped, note);
                }
                urls.push(url.clone());
                let cookie = server.cookie.clone().or_else(|| self.dynamic_cookie(proxy, server));
                let limits = (server.maxconn, server.maxqueue);
                servers.push(ServedServer { name: name.into(), cookie: cookie.map(Into::into), limits });
            }
        }
        (urls, servers)
    }

    fn refuse(&mut self, server: &Server, note: impl Into<String>) {
        self.say(server.id.at, &server.id.name, Refused, note);
    }

    /// The value of a server in the cookie of its backend, made from the key, its address and its port as HAProxy makes it
    /// (`srv_set_dyncookie`), so both find the same server.
    fn dynamic_cookie(&mut self, proxy: &Proxy, server: &Server) -> Option<String> {
        proxy.persistence.as_ref().filter(|persistence| persistence.is_dynamic)?;
        let Some(key) = &proxy.dynamic_cookie_key else {
            self.say(
                proxy.at,
                "dynamic",
                Lost,
                "dynamic-cookie-key is missing: a server without a value keeps no client",
            );
            return None;
        };
        let Ok(ip) = server.address.host.parse::<IpAddr>() else {
            let note = "a dynamic cookie needs an address in place of the name: the server keeps no client";
            self.say(server.id.at, &server.id.name, Lost, note);
            return None;
        };
        let mut text = key.as_bytes().to_vec();
        match ip {
            IpAddr::V4(ip) => text.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => text.extend_from_slice(&ip.octets()),
        }
        text.extend_from_slice(&u32::from(server.address.port?).to_be_bytes());
        Some(format!("{:016x}", xxh64(&text, 0)))
    }

    /// Reports check targets that differ: checks use the address of requests.
    fn check_target(&mut self, server: &Server) {
        let other_port = server.check_port.filter(|port| Some(*port) != server.address.port);
        let other_host = server.check_address.as_ref().filter(|host| **host != server.address.host);
        if server.is_checked && (other_port.is_some() || other_host.is_some()) {
            let note = "its checks have another address or port: they go where requests go";
            self.say(server.id.at, &server.id.name, Lost, note);
        }
    }

    /// The URL of a server with its attributes; `None` if it cannot be reached.
    fn server(&mut self, server: &Server) -> Option<String> {
        let HostPort { host, is_unix, port, port_offset } = &server.address;
        if host.is_empty() {
            self.refuse(
                server,
                "it stands for the address that the client connected to; write the address of a server",
            );
            return None;
        }
        if *is_unix {
            let note =
                format!("{host}: sluice connects to no UNIX sockets; have the server listen at 127.0.0.1 and a port");
            self.refuse(server, note);
            return None;
        }
        let (Some(port), None) = (port, port_offset) else {
            self.refuse(server, "its port depends on the port that the client connected to; write a number");
            return None;
        };
        let scheme = if server.is_tls { "https" } else { "http" };
        let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
        let mut text = format!("{scheme}://{open}{host}{close}:{port}");
        put_attributes(server, &mut text);
        self.server_tls(server, &mut text)?;
        Some(text)
    }

    /// The TLS parameters of a server.
    fn server_tls(&mut self, server: &Server, text: &mut String) -> Option<()> {
        let Server { is_tls, verify, verify_host, ca_file, crl_file, certificate, sni, .. } = server;
        if !is_tls {
            return Some(());
        }
        let is_verified = verify.unwrap_or(!self.model.global.skips_server_verify);
        if !is_verified {
            text.push_str("&verify=none");
        } else if let Some(file) = ca_file.as_deref().filter(|file| *file != "@system-ca") {
            let file = self.in_folder(&self.model.global.ca_base, file);
            // An attribute has an absolute path.
            let path = std::path::absolute(&file).ok().filter(|path| !path.to_string_lossy().contains('&'));
            let Some(path) = path else {
                self.refuse(server, format!("ca-file {}: the path of an attribute has no &", file.display()));
                return None;
            };
            let _ = write!(text, "&ca={}", path.display());
        }
        // They are refused by their keywords; with --lossy the server is left out.
        if crl_file.is_some() || certificate.is_some() {
            return None;
        }
        let constant = sni.as_deref().and_then(|sni| sni.strip_prefix("str(")?.strip_suffix(')'));
        if let Some(name) = verify_host.as_deref().or(constant) {
            let _ = write!(text, "&sni={name}");
        } else if sni.is_some() {
            self.say(
                server.id.at,
                &server.id.name,
                Mapped,
                "sni: the server name is verified, and not one of the request",
            );
        }
        Some(())
    }
}

/// The attributes of a server, besides its address. Fields whose treatment is fixed by the keyword alone are covered by
/// the table of keywords.
fn put_attributes(server: &Server, text: &mut String) {
    let Server {
        id: _,
        template: _,
        address: _,
        is_checked: _,
        check_port: _,
        check_address: _,
        check_tls: _,
        check_sni: _,
        check_send_proxy: _,
        inter: _,
        fast_inter: _,
        down_inter: _,
        rise: _,
        fall: _,
        weight,
        is_backup,
        maxconn,
        minconn: _,
        maxqueue: _,
        slow_start,
        cookie: _,
        is_tls: _,
        verify: _,
        verify_host: _,
        ca_file: _,
        crl_file: _,
        certificate: _,
        sni: _,
        alpn: _,
        send_proxy,
        is_disabled,
        resolvers: _,
        init_addr: _,
        resolve_prefer: _,
        redir: _,
        track: _,
        observe_layer7: _,
        on_error: _,
        error_limit: _,
        shutdown_when_down: _,
        pool_max: _,
        pool_purge: _,
    } = server;
    let _ = write!(text, "#weight={weight}");
    if *maxconn > 0 {
        let _ = write!(text, "&capacity={}", (*maxconn).min(1_000_000));
    }
    text.push_str(if *is_backup { "&role=backup" } else { "" });
    text.push_str(if *is_disabled { "&disabled=true" } else { "" });
    if let Some(time) = slow_start {
        let _ = write!(text, "&slowStart={}", millis(*time));
    }
    if let Some(version) = send_proxy {
        let _ = write!(text, "&proxy=v{version}");
    }
}

/// The names of the servers of a line.
fn names(server: &Server) -> Vec<String> {
    match server.template {
        None => vec![server.id.name.clone()],
        Some(template) => {
            (template.first..=template.last).map(|number| format!("{}{number}", server.id.name)).collect()
        }
    }
}

/// A time in the syntax of options.
pub(super) fn millis(time: Duration) -> String {
    format!("{}ms", time.as_millis().clamp(1, 31_536_000_000))
}
