//! The options of a cluster, from the settings of a backend.

use super::Lowering;
use super::servers::millis;
use crate::cluster::Options;
use crate::haproxy::keyword::Treatment::{Lost, Mapped, Refused};
use crate::haproxy::model::{Balance, Flag, HealthCheck, HttpCheckStep, Proxy, Timeouts};
use std::sync::Arc;
use std::time::Duration;

/// The greatest length of a queue that an option allows.
const LONGEST_QUEUE: u64 = 1_000_000;

impl Lowering<'_, '_> {
    /// The options of a backend.
    pub(super) fn options(&mut self, proxy: &Proxy) -> Arc<Options> {
        let mut pairs: Vec<(&str, String)> = vec![
            // HAProxy redirects by rules, limits no bodies and sends no `Retry-After`.
            ("httpsRedirect", "false".into()),
            ("maxBodyBytes", "0".into()),
            ("retryAfter", "0".into()),
            ("retries", proxy.retries.unwrap_or(3).min(LONGEST_QUEUE).to_string()),
        ];
        self.balance(proxy, &mut pairs);
        self.retry_on(proxy, &mut pairs);
        self.queue(proxy, &mut pairs);
        self.timeouts(proxy, &mut pairs);
        self.health(proxy, &mut pairs);
        let (options, errors) =
            Options::read(pairs.iter().map(|(name, value)| (*name, value.as_str())), &Options::default());
        for error in errors {
            self.say(proxy.at, &proxy.name, Lost, error.to_string());
        }
        Arc::new(options)
    }

    fn balance(&mut self, proxy: &Proxy, pairs: &mut Vec<(&str, String)>) {
        let mut lose = |note: &str| self.say(proxy.at, "balance", Lost, note);
        let (scheduler, key) = match &proxy.balance {
            Balance::RoundRobin | Balance::StaticRoundRobin => ("rr", None),
            Balance::LeastConn => ("leastLoad", None),
            Balance::First => ("chance", None),
            Balance::Random(_) => ("random", None),
            Balance::Source => ("hash", Some("client".to_owned())),
            Balance::Uri { len, depth, whole, path_only: _ } => {
                if len.is_some() || depth.is_some() {
                    lose("len and depth: the whole path is hashed");
                }
                ("hash", Some(if *whole { "uri" } else { "path" }.to_owned()))
            }
            Balance::Header(name, use_domain_only) => {
                if *use_domain_only {
                    lose("use_domain_only: the whole value is hashed");
                }
                ("hash", Some(format!("header:{name}")))
            }
            Balance::UrlParam(name) => ("hash", Some(format!("query:{name}"))),
            Balance::Hash(_) => {
                lose("hash: the client's address is hashed, and no sample");
                ("hash", Some("client".to_owned()))
            }
        };
        let is_hashed = key.is_some();
        pairs.push(("scheduler", scheduler.into()));
        pairs.extend(key.map(|key| ("hash.key", key)));
        if is_hashed && proxy.hash_type.is_none() {
            self.say(proxy.at, "balance", Mapped, "the hash is consistent, with another function than HAProxy's");
        }
        if proxy.servers.iter().filter(|server| server.is_backup).count() > 1 && !proxy.has(Flag::AllBackups) {
            self.say(proxy.at, "backup", Mapped, "all backup servers share the load, as with option allbackups");
        }
    }

    /// The failures after which a request is tried again: in HAProxy those to connect, unless `retry-on` says otherwise.
    fn retry_on(&mut self, proxy: &Proxy, pairs: &mut Vec<(&str, String)>) {
        let mut causes: Vec<&str> = Vec::new();
        let mut lost = Vec::new();
        if proxy.retry_on.is_empty() {
            causes.push("connect");
        }
        for word in &proxy.retry_on {
            match word.as_str() {
                "conn-failure" => causes.push("connect"),
                "empty-response" => causes.push("close"),
                "response-timeout" => causes.push("timeout"),
                "502" => causes.push("502"),
                "503" => causes.extend(["503", "busy"]),
                "504" => causes.push("504"),
                "all-retryable-errors" => {
                    causes.extend(["connect", "close", "timeout", "502", "503", "busy", "504"]);
                    lost.push("500 and junk-response of all-retryable-errors");
                }
                // There is none, or no early data.
                "none" | "0rtt-rejected" => {}
                other => lost.push(other),
            }
        }
        if !lost.is_empty() {
            let note = format!("{}: such a response goes to the client", lost.join(", "));
            self.say(proxy.at, "retry-on", Lost, note);
        }
        pairs.push(("retryOn", if causes.is_empty() { "none".to_owned() } else { causes.join(",") }));
    }

    fn queue(&mut self, proxy: &Proxy, pairs: &mut Vec<(&str, String)>) {
        let wait = proxy.timeouts.queue.or(proxy.timeouts.connect);
        pairs.extend(wait.map(|wait| ("queueTimeout", millis(wait))));
        let is_limited = !proxy.servers.is_empty() && proxy.servers.iter().all(|server| server.maxqueue > 0);
        let limit = match is_limited {
            true => proxy.servers.iter().map(|server| server.maxqueue).sum::<u64>().min(LONGEST_QUEUE),
            false => LONGEST_QUEUE,
        };
        pairs.push(("queueLimit", limit.to_string()));
    }

    fn timeouts(&mut self, proxy: &Proxy, pairs: &mut Vec<(&str, String)>) {
        let Timeouts {
            connect,
            server,
            tunnel,
            // The frontend's value applies.
            client: _,
            http_request: _,
            http_keep_alive: _,
            // These are used with queues and checks.
            queue: _,
            check: _,
            client_fin: _,
            server_fin: _,
            tarpit: _,
        } = &proxy.timeouts;
        let mut add = |name, time: &Option<Duration>| pairs.extend(time.map(|time| (name, millis(time))));
        add("connectTimeout", connect);
        add("responseTimeout", server);
        add("bodyTimeout", server);
        add("streamTimeout", server);
        add("tunnelTimeout", &tunnel.or(*server));
    }

    /// Health checks of servers. All servers of a cluster are checked in the same manner.
    fn health(&mut self, proxy: &Proxy, pairs: &mut Vec<(&str, String)>) {
        let checked: Vec<_> = proxy.servers.iter().filter(|server| server.is_checked).collect();
        let Some(first) = checked.first() else { return };
        let mut tell = |note: &str| self.say(proxy.at, "check", Mapped, note);
        if checked.len() < proxy.servers.len() {
            tell("some servers have no check: all of the backend are checked");
        }
        let differs = |server: &&&crate::haproxy::model::Server| {
            (server.inter, server.rise, server.fall) != (first.inter, first.rise, first.fall)
        };
        if checked.iter().any(|server| differs(&server)) {
            tell("inter, rise and fall of the first server with a check hold for all of the backend");
        }
        pairs.push(("health.mode", "paranoid".into()));
        pairs.push(("health.interval", millis(first.inter)));
        pairs.push(("health.timeout", millis(proxy.timeouts.check.unwrap_or(first.inter))));
        pairs.push(("health.rise", first.rise.to_string()));
        pairs.push(("health.fall", first.fall.to_string()));
        self.check_request(proxy, pairs);
    }

    /// The request of a check, and the expected response.
    fn check_request(&mut self, proxy: &Proxy, pairs: &mut Vec<(&str, String)>) {
        let HealthCheck { is_http, method, uri, version, steps, disable_on_404: _, send_state: _ } = &proxy.check;
        if !is_http {
            self.say(proxy.at, "check", Mapped, "a check is a request OPTIONS /, whose response may have any status");
            pairs.push(("health.expect", "100-599".into()));
            return;
        }
        let mut request = (method.clone(), uri.clone(), None);
        // In old files header lines follow the version.
        let lines = version.as_deref().unwrap_or_default().split("\r\n").skip(1);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("host") {
                request.2 = Some(value.trim().to_owned());
            }
        }
        for step in steps {
            match step {
                HttpCheckStep::Send { method, uri, version: _, headers, body } => {
                    request.0 = method.clone().or(request.0);
                    request.1 = uri.clone().or(request.1);
                    for (name, value) in headers {
                        match name.eq_ignore_ascii_case("host") {
                            true => request.2 = Some(value.clone()),
                            false => {
                                self.say(proxy.at, "http-check send", Lost, format!("the header {name} is not sent"))
                            }
                        }
                    }
                    if body.is_some() {
                        self.say(proxy.at, "http-check send", Lost, "checks have no body");
                    }
                }
                HttpCheckStep::Expect { negated, what, pattern } => {
                    self.expect((*negated, what, pattern), proxy, pairs)
                }
                HttpCheckStep::Connect(_) => {}
            }
        }
        let (method, uri, host) = request;
        pairs.extend(method.map(|method| ("health.method", method)));
        pairs.extend(uri.map(|uri| ("health.path", uri)));
        pairs.extend(host.map(|host| ("health.host", host)));
    }

    fn expect(&mut self, expected: (bool, &str, &str), proxy: &Proxy, pairs: &mut Vec<(&str, String)>) {
        match expected {
            (false, "status", statuses) => pairs.push(("health.expect", statuses.replace(' ', ","))),
            (false, "string", text) => pairs.push(("health.body", text.to_owned())),
            (negated, what, _) => {
                let not = if negated { "! " } else { "" };
                let note = format!("{not}{what}: a status or a text in the body can be expected");
                self.say(proxy.at, "http-check expect", Refused, note);
            }
        }
    }
}
