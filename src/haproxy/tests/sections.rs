//! Tests of sections, and of lines without rules.

use super::*;
use crate::haproxy::Verdict;
use crate::haproxy::model::*;
use crate::haproxy::rules::Action;
use Treatment::{Lost, Mapped, Refused, Wrong};
use std::time::Duration;

#[test]
fn a_usual_file_is_taken_whole() {
    let loaded = read(
        "global\n log /dev/log local0\n maxconn 4000\n daemon\n crt-base /etc/ssl\n ssl-default-bind-options no-sslv3\n\
         defaults\n mode http\n log global\n option httplog\n option redispatch\n timeout connect 5s\n timeout client 1m\n \
         timeout server 60000\n retries 2\n errorfile 503 /e/503.http\n\
         frontend www\n bind *:80\n bind :::443 v4v6 ssl crt site.pem alpn h2,http/1.1\n \
         redirect scheme https code 301 if !{ ssl_fc }\n acl api path_beg /api\n use_backend api if api\n default_backend web\n\
         backend web\n balance leastconn\n cookie SRV insert indirect nocache\n option httpchk GET /health\n \
         default-server inter 3s fall 2 maxconn 50\n server a 10.0.0.1:80 check cookie a weight 3\n \
         server b 10.0.0.2:80 check backup inter 500\n\
         backend api\n server-template n 3 api.local:8080 check resolvers dns init-addr none\n\
         resolvers dns\n nameserver one 10.0.0.53:53\n hold valid 10s\n",
    );
    assert_eq!(loaded.verdict(false), Verdict::Whole, "{:#?}", remarks(&loaded));
    let model = &loaded.model;
    assert_eq!((model.global.maxconn, model.global.crt_base.as_deref()), (Some(4000), Some("/etc/ssl")));
    let [www, web, api] = model.proxies.as_slice() else { panic!("{:?}", model.proxies.len()) };
    assert_eq!((www.binds.len(), www.binds[1].is_tls, www.binds[1].alpn.len()), (2, true, 2));
    assert_eq!(www.default_backend.as_ref().map(|(name, _)| name.as_str()), Some("web"));
    assert_eq!((www.rules.redirects.len(), www.rules.use_backend.len()), (1, 1));
    for proxy in [www, web, api] {
        assert_eq!(proxy.timeouts.connect, Some(Duration::from_secs(5)), "{} inherits", proxy.name);
        assert_eq!(proxy.timeouts.server, Some(Duration::from_secs(60)), "milliseconds without a unit");
        assert!(proxy.has(Flag::Redispatch) && proxy.retries == Some(2) && proxy.errors.len() == 1);
    }
    let [a, b] = web.servers.as_slice() else { panic!("two servers") };
    assert_eq!((a.inter, a.fall, a.maxconn, a.weight), (Duration::from_secs(3), 2, 50, 3));
    assert_eq!((b.inter, b.is_backup), (Duration::from_millis(500), true));
    assert_eq!(web.check.uri.as_deref(), Some("/health"));
    let cookie = web.persistence.as_ref().expect("a cookie");
    assert_eq!((cookie.mode, cookie.indirect, cookie.nocache), (CookieMode::Insert, true, true));
    assert_eq!(api.servers[0].template, Some(Template { first: 1, last: 3 }));
    assert_eq!(model.resolvers[0].times["hold valid"], Duration::from_secs(10));
}

#[test]
fn defaults_are_inherited_by_order_and_by_name() {
    let loaded = read(
        "defaults one\n mode http\n timeout client 1s\n option httplog\n\
         defaults two from one\n timeout client 2s\n no option httplog\n\
         defaults\n mode http\n timeout client 3s\n\
         frontend a\n bind :1\nfrontend b from one\n bind :2\nlisten c from two\n bind :3\n",
    );
    assert_eq!(loaded.verdict(false), Verdict::Whole, "{:#?}", remarks(&loaded));
    let client = |index: usize| loaded.model.proxies[index].timeouts.client.expect("a time").as_secs();
    assert_eq!([client(0), client(1), client(2)], [3, 1, 2]);
    let has_log = |index: usize| loaded.model.proxies[index].has(Flag::HttpLog);
    assert_eq!([has_log(0), has_log(1), has_log(2)], [false, true, false]);
}

#[test]
fn proxies_that_are_not_http_are_left_out_with_one_loss() {
    let loaded = read("listen db\n bind :3306\n balance source\n option mysql-check\n server a 10.0.0.1:3306 check\n");
    expect_one("mode tcp", &loaded, Lost, "not in mode http");
    assert!(loaded.model.proxies.is_empty());
    assert_eq!(loaded.verdict(false), Verdict::WithLosses(1));
    let leads = read("defaults\n mode http\nfrontend f\n bind :80\n default_backend b\nbackend b\n mode tcp\n");
    assert!(matches!(leads.verdict(false), Verdict::Not { refused: 1, wrong: 0 }), "{:#?}", remarks(&leads));
    assert_eq!(leads.verdict(true), Verdict::WithLosses(2));
}

#[test]
fn lines_are_judged() {
    let table: &[(&str, Treatment, &str)] = &[
        ("timeout clinet 5s", Wrong, "timeout client is similar"),
        ("use_backnd web", Wrong, "use_backend is similar"),
        ("option httplgo", Wrong, "option httplog is similar"),
        ("maxconn many", Wrong, "is no number"),
        ("maxconn 5 6", Wrong, "not expected here"),
        ("timeout client 5x", Wrong, "is no time"),
        ("timeout client 15min", Mapped, "2.7 refuses the unit min"),
        (
            "balance roundrobin",
            Treatment::Ignored,
            "stands in defaults, listen, backend only; HAProxy does not read it",
        ),
        ("server a 10.0.0.1:80", Wrong, "stands in listen, backend only"),
        ("bind :81 sll", Wrong, "ssl is similar"),
        ("bind :81 ssl crt", Wrong, "expected a value after crt"),
        ("bind :81 ssl crt a.pem no-sslv3", Treatment::Ignored, "TLS 1.2 and 1.3"),
        ("bind quic4@:443", Lost, "QUIC"),
        ("bind 80", Wrong, "no port"),
        ("default_backend wbe", Wrong, "web is similar"),
        ("default_backend", Wrong, "expected a backend"),
        ("option http_proxy", Refused, "not a forward proxy"),
        ("capture request header Host len 10", Treatment::Mapped, "capture.req.hdr"),
        ("capture cookie A len 10", Lost, "access log"),
        ("monitor-uri http://www.example.org/up", Lost, "in origin form"),
        ("capture response header Host", Wrong, "expected len"),
        ("declare capture both len 10", Wrong, "neither request nor response"),
        ("filter spoe engine waf", Refused, "no filter spoe"),
        ("option forwardfor except 10.0.0.0/40", Wrong, "no network"),
        ("compression algo brotli", Wrong, "is not gzip"),
        ("no maxconn", Wrong, "no does not stand before maxconn"),
        ("errorfile 99 x", Wrong, "is no status"),
        ("stats auth user", Wrong, "a colon and a password"),
        ("stats auth user:pass word", Wrong, "nothing after the password"),
        ("http-request use-service lua.x", Refused, "prometheus-exporter only"),
        ("http-request sc-inc-gpc0(3)", Wrong, "the number of a slot"),
        ("stick-table size 1k", Wrong, "expected type and size"),
        ("log-format \"%ci %[nothing]\"", Wrong, "no sample fetch"),
        ("unique-id-header X Y", Wrong, "not expected here"),
    ];
    for (line, treatment, part) in table {
        expect_one(line, &frontend(line), *treatment, part);
    }
}

#[test]
fn lines_of_backends_are_judged() {
    let table: &[(&str, Treatment, &str)] = &[
        ("balance", Mapped, "roundrobin is taken"),
        ("balance leastcon", Wrong, "no way to balance"),
        ("balance rdp-cookie", Lost, "roundrobin"),
        ("server a 10.0.0.1:80 chek", Wrong, "check is similar"),
        ("server a 10.0.0.1:80 weight 300", Wrong, "no weight"),
        ("server a 10.0.0.1:80 socks4 10.0.0.2:1", Refused, "SOCKS"),
        ("server a 10.0.0.1:80 agent-check", Lost, "agents"),
        ("server a 0.0.0.0:80", Refused, "own destination"),
        ("server a", Wrong, "an address after the name"),
        ("server a 10.0.0.1:99999", Wrong, "no port"),
        ("option mysql-check", Lost, "over HTTP or by a connection"),
        ("http-check expect staus 200", Wrong, "no word of http-check expect"),
        ("use-server x if TRUE", Wrong, "no server of this name"),
        ("hash-type consistant", Wrong, "neither"),
        ("retry-on sometimes", Wrong, "no cause"),
        ("source 10.0.0.9", Lost, "system's choice"),
        ("force-persist if TRUE", Refused, "never used"),
    ];
    for (line, treatment, part) in table {
        expect_one(line, &read(&format!("backend b\n mode http\n{line}\n")), *treatment, part);
    }
}

#[test]
fn sections_are_judged() {
    let table: &[(&str, Treatment, &str)] = &[
        ("frontnd x\n", Wrong, "frontend is similar"),
        ("mode http\n", Wrong, "no section begins"),
        ("backend\n mode http\n", Wrong, "expected a name"),
        ("program api\n command /x\n", Lost, "use systemd"),
        ("global\n maxcon 4\n", Wrong, "maxconn is similar"),
        ("global\n tune.bufsize 32768\n", Treatment::Ignored, "own settings"),
        ("global\n lua-load x.lua\n", Lost, "not run Lua"),
        ("userlist u\n user a pasword x\n", Wrong, "no word of user"),
        ("userlist u\n usr a\n", Wrong, "user is similar"),
        ("crt-store s\n load key x\n", Wrong, "expected crt"),
        ("defaults a\n mode http\nbackend b from c\n mode http\n", Wrong, "no defaults of this name"),
        ("backend b\n mode http\nbackend b\n mode http\n", Wrong, "stands at line 1 already"),
        ("backend b\n mode http\n server a 1.1.1.1:1\n server a 1.1.1.1:2\n", Mapped, "second server"),
        ("backend b\n mode http", Mapped, "no line end"),
        ("backend b\n mode 'http\n mode http\n", Wrong, "not closed"),
        ("listen l :80\n mode http\n", Mapped, "write a bind line"),
        (".alert no\n", Wrong, "the file itself says"),
    ];
    for (text, treatment, part) in table {
        expect_one(text, &read(text), *treatment, part);
    }
}

#[test]
fn old_words_keep_their_meaning() {
    let loaded = read(
        "defaults\n mode http\n contimeout 5000\n clitimeout 50000\n srvtimeout 50000\n option forceclose\n\
         listen web 0.0.0.0:$PORT\n balance\n reqadd X-Proto:\\ https\n reqirep ^Host:.* Host:\\ x\n rspidel ^Server:.*\n \
         block if { path_beg /private }\n http-request deny if { path /b }\n server a 127.0.0.1:80\n",
    );
    assert_eq!(loaded.verdict(false), Verdict::Whole, "{:#?}", remarks(&loaded));
    let web = &loaded.model.proxies[0];
    assert_eq!(web.timeouts.client, Some(Duration::from_secs(50)));
    assert!(web.has(Flag::HttpClose));
    let BindAddress::Inet { first, .. } = web.binds[0].addresses[0] else { panic!("{:?}", web.binds) };
    assert_eq!(first, 8080, "a variable without quotes");
    let rules = &web.rules;
    assert_eq!((rules.request.len(), rules.old_request.len(), rules.old_response.len()), (2, 2, 1));
    let is_added: Vec<_> = rules.old_request.iter().map(|rule| matches!(rule.action, Action::AddLine(_))).collect();
    assert_eq!(is_added, [false, true], "lines are added last");
}
