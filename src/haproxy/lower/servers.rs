//! The members of a cluster, from the `server` lines of a backend.

use super::{Lowering, Servers};
use crate::cluster::BackendUrl;
use crate::haproxy::keyword::Treatment::{Lost, Mapped, Refused};
use crate::haproxy::model::{HostPort, Proxy, Server};
use crate::haproxy::serve::ServedServer;
use std::collections::HashSet;
use std::fmt::Write;
use std::time::Duration;

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
                servers.push(ServedServer { name: name.into(), cookie: server.cookie.as_deref().map(Into::into) });
            }
        }
        (urls, servers)
    }

    fn refuse(&mut self, server: &Server, note: impl Into<String>) {
        self.say(server.id.at, &server.id.name, Refused, note);
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
        let HostPort { host, port, port_offset } = &server.address;
        if host.is_empty() || host.starts_with('/') || port_offset.is_some() {
            self.refuse(server, "sluice reaches servers at an address or a name, and a port");
            return None;
        }
        let Some(port) = port else {
            self.refuse(server, "sluice needs the port of a server; HAProxy takes the client's");
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
        } else if ca_file.as_deref().is_some_and(|file| file != "@system-ca") {
            self.refuse(server, "ca-file: sluice trusts the system's authorities, or those of server.backendTls.ca");
            return None;
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
