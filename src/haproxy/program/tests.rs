//! Programs applied to requests.

use super::*;
use crate::haproxy::rules::{Action, Counter, CounterOperation, Side};
use crate::haproxy::{Environment, Source, Treatment, load};
use std::net::SocketAddr;
use std::path::Path;

struct Request {
    method: &'static str,
    target: &'static str,
    fields: Vec<(&'static str, &'static str)>,
    source: &'static str,
    is_tls: bool,
    rate: u64,
    up: u64,
}

impl Default for Request {
    fn default() -> Self {
        Self { method: "GET", target: "/", fields: Vec::new(), source: "192.0.2.1", is_tls: false, rate: 0, up: 2 }
    }
}

impl RequestView for Request {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn target(&self) -> &[u8] {
        self.target.as_bytes()
    }
    fn version(&self) -> (u8, u8) {
        (1, 1)
    }
    fn each_field(&self, side: Side, see: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> bool {
        side == Side::Request && self.fields.iter().any(|(name, value)| see(name.as_bytes(), value.as_bytes()))
    }
    fn source(&self) -> SocketAddr {
        SocketAddr::new(self.source.parse().expect("an address"), 4000)
    }
    fn destination(&self) -> SocketAddr {
        "198.51.100.1:8443".parse().expect("an address")
    }
    fn is_tls(&self) -> bool {
        self.is_tls
    }
    fn variable(&self, name: &str) -> Option<&[u8]> {
        (name == "txn.v").then_some(b"val")
    }
    fn servers_up(&self, _: Option<&str>) -> Option<u64> {
        Some(self.up)
    }
    fn counter(&self, counter: (Counter, CounterOperation), _: Option<u8>, _: Option<&str>) -> Option<u64> {
        (counter.0 == Counter::HttpReqRate).then_some(self.rate)
    }
    fn user(&self, userlist: &str) -> Option<&str> {
        (userlist == "good").then_some("u")
    }
}

fn program(lines: &str) -> (Program, Vec<String>) {
    let text = format!(
        "frontend f\n mode http\n bind :80\n{lines}\nbackend web\n mode http\nbackend api\n mode http\nbackend x\n mode http\nbackend off\n mode http\n disabled\n\
         userlist good\nuserlist bad\n"
    );
    let files = |path: &Path| match path.to_str() {
        Some("m.map") => Ok("a.example api\nb.example x\n".into()),
        Some("n.map") => Ok("192.0.2.0/24 api\n192.0.2.0/28 x\n2001:db8::/32 web\n".into()),
        Some("p.map") => Ok("/a api\n/a/b x\n".into()),
        _ => Err("none".to_owned()),
    };
    let loaded = load(&[Source { name: "f".into(), bytes: text.into() }], &mut Environment::new([], &files));
    // Programs can read counters without a table.
    let is_bad = |finding: &&crate::haproxy::Finding| {
        finding.treatment >= Treatment::Lost && !finding.note.contains("stick-table")
    };
    let bad: Vec<_> = loaded.findings.iter().filter(is_bad).collect();
    assert!(bad.is_empty(), "{lines}: {bad:#?}");
    let names = loaded.model.proxies.iter().map(|proxy| proxy.name.clone()).collect();
    (Program::new(&loaded.model.proxies[0], &loaded.model), names)
}

fn choose(lines: &str, request: &Request) -> String {
    let (program, names) = program(lines);
    match program.backend(request, &mut Scratch::default()) {
        Choice::Backend(index) => names[index].clone(),
        Choice::None => String::new(),
    }
}

fn with(fields: &[(&'static str, &'static str)]) -> Request {
    Request { fields: fields.to_vec(), ..Request::default() }
}

/// Whether one test matches.
fn matches(criterion: &str, request: &Request) -> bool {
    choose(&format!("use_backend web if {{ {criterion} }}"), request) == "web"
}

const YES: &[&str] = &[
    "str(a),hex 61",
    "int(5),hex 0000000000000005",
    "src,hex C0000201",
    "src,base64 wAACAQ==",
    "str(ab?),base64 YWI/",
    "str(ab?),ub64enc YWI_",
    "str(YWI/),b64dec ab?",
    "str(YW==),b64dec a",
    "str(YQ),ub64dec a",
    "path,url_enc %2Fimg%2FLogo.png",
    "query,url_enc(query) id%3D7%26q%3Da%2520b",
    "int(6),and(3) 2",
    "int(5),or(2) 7",
    "int(5),xor(1) 4",
    "int(5),cpl,neg 6",
    "int(-5),odd",
    "int(0),even",
    "path /img/Logo.png",
    "path_beg /img",
    "path_end .png",
    "path_dir img",
    "path_sub ogo",
    "path_reg ^/img/.*g$",
    "path -i /IMG/logo.PNG",
    "path_end -i .PNG",
    "path_reg -i LOGO",
    "path,lower /img/logo.png",
    "path -m len 13",
    "pathq /img/Logo.png?id=7&q=a%20b",
    "url_beg /img",
    "query id=7&q=a%20b",
    "url_param(id) 7",
    "urlp(id) -m int 5:10",
    "url_param(q),url_dec 'a b'",
    "method POST",
    "method GET POST",
    "hdr(host) -i www.example.org:8080",
    "hdr(host),lower,host_only www.example.org",
    "hdr(host),port_only 8080",
    "hdr(host),field(1,:),lower -m end .org",
    "hdr_beg(host) -i www.",
    "hdr_dom(host) -i example.org",
    "hdr_dom(host) -i example",
    "hdr(host) -m found",
    "hdr(x-forwarded-for) 10.2.2.2",
    "hdr_ip(x-forwarded-for) 10.3.0.0/16",
    "hdr(x-forwarded-for,-1) 10.3.3.3",
    "hdr(x-forwarded-for,1) 10.1.1.1",
    "hdr(x-forwarded-for,-3) 10.1.1.1",
    "hdr_cnt(x-forwarded-for) 3",
    "hdr_cnt(user-agent) 2",
    "req.fhdr_cnt(user-agent) eq 1",
    "hdr_val(content-length) gt 10",
    "hdr(user-agent) Other/1.0",
    "req.cook(session) xyz",
    "cook_cnt gt 1",
    "req.cook(a) -m int 1",
    "src 192.0.2.0/24",
    "src ::ffff:192.0.2.1",
    "dst_port 8443",
    "dst_port 8000:9000",
    "ssl_fc",
    "req.ver 1.1",
    "always_true",
    "nbsrv(web) ge 2",
    "src_http_req_rate(f) gt 40",
    "http_auth(good)",
    "base_beg WWW.Example.org:8080/img/L",
    "var(txn.v) val",
    "int(5),add(3) 8",
    "str(a.b.c),word(-1,.) c",
    "str(a..c),field(2,.) -m len 0",
    "str(abc),bytes(1,1) b",
    "str(xxabc),ltrim(x) abc",
    "path,regsub(^/img,/pic,) /pic/Logo.png",
    "src,ipmask(24) 192.0.2.0",
    "str(ab) -m sub a",
    "hdr(host),lower,regsub(:.*,) www.example.org",
];

const NO: &[&str] = &[
    "str(YWI),b64dec -m found",
    "str(YWI/),ub64dec -m found",
    "int(5),even",
    "path /img",
    "path_beg /IMG",
    "path_end png?id=7",
    "path_dir im",
    "path_reg ^img",
    "path -m len 5",
    "url_param(x) 7",
    "url_param(x) -m found",
    "method GET",
    "hdr(host) -i www.example.org",
    "hdr_dom(host) -i xample",
    "hdr(x) -m found",
    "hdr(x-forwarded-for,-4) -m found",
    "hdr(user-agent) -m beg Other/2",
    "req.cook(sessio) -m found",
    "src 192.0.3.0/24",
    "src ::1",
    "ssl_fc,not",
    "req.ver 1.0",
    "always_false",
    "nbsrv(web) lt 2",
    "src_conn_cur gt 0",
    "http_auth(bad)",
    "hdr_val(host) 1",
    "dst_port 80",
    "str(a),field(3,.) -m found",
    "path,length gt 20",
];

#[test]
fn tests_match_what_they_should() {
    let request = Request {
        method: "POST",
        target: "/img/Logo.png?id=7&q=a%20b",
        fields: vec![
            ("Host", "WWW.Example.org:8080"),
            ("X-Forwarded-For", "10.1.1.1, 10.2.2.2"),
            ("x-forwarded-for", "10.3.3.3"),
            ("Cookie", "a=1; session=xyz"),
            ("User-Agent", "Bot \"a,b\", Other/1.0"),
            ("Content-Length", "20"),
        ],
        is_tls: true,
        rate: 50,
        ..Request::default()
    };
    for criterion in YES {
        assert!(matches(criterion, &request), "{criterion} does not match");
    }
    for criterion in NO {
        assert!(!matches(criterion, &request), "{criterion} matches");
    }
    // Every parameter with the name counts, after either delimiter.
    for target in ["/?role=x&role=admin", "/?a=1;role=admin"] {
        assert!(matches("url_param(role) admin", &Request { target, ..Request::default() }), "{target}");
    }
    assert!(
        !matches("url_param(debug) -m found", &Request { target: "/?debug", ..Request::default() }),
        "it has no value"
    );
    let absolute = Request { target: "http://h.example/p?q", ..Request::default() };
    assert!(matches("path /p", &absolute) && matches("url_reg ^[^/:]*://", &absolute));
    assert!(!matches("path -m found", &Request { target: "*", method: "OPTIONS", ..Request::default() }));
}

#[test]
fn conditions_are_or_of_and() {
    let lines = "acl host hdr(host) a\nacl path path_beg /p\nacl host hdr(host) b\nuse_backend web if host path or { method PUT }\n\
                 use_backend api unless host !path || TRUE\nacl path path_beg /late\nuse_backend x if host\n";
    let request = |host, target, method| Request { target, method, ..with(&[("Host", host)]) };
    let table = [
        ("a", "/p", "GET", "web"),
        ("b", "/p", "GET", "web"),
        ("c", "/p", "PUT", "web"),
        ("a", "/late", "GET", "web"),
        ("a", "/", "GET", "x"),
        ("c", "/", "GET", ""),
    ];
    for (host, target, method, expected) in table {
        assert_eq!(choose(lines, &request(host, target, method)), expected, "{host} {target} {method}");
    }
}

#[test]
fn the_choice_is_haproxys() {
    let table: &[(&str, &str, &str)] = &[
        ("default_backend web", "a.example", "web"),
        ("use_backend api if { hdr(host) a.example }\ndefault_backend web", "a.example", "api"),
        ("default_backend web\nuse_backend api if { hdr(host) a.example }", "b.example", "web"),
        ("use_backend %[hdr(host),lower,map(m.map)]\ndefault_backend web", "A.example", "api"),
        ("use_backend %[hdr(host),lower,map(m.map,web)]", "other", "web"),
        ("use_backend %[hdr(host)]\nuse_backend api if TRUE\ndefault_backend x", "nowhere", "x"),
        ("use_backend x%[str()]", "a", "x"),
        ("use_backend off if TRUE\nuse_backend api if TRUE", "a", "api"),
        ("use_backend %[str(off)]\nuse_backend api\ndefault_backend web", "a", "web"),
        ("use_backend %[path,map_beg(p.map)]", "/a/b/c", "x"),
        ("use_backend %[src,map_ip(n.map)]", "any", "x"),
        ("use_backend %[str(2001:db8::7),map_ip(n.map)]", "any", "web"),
        ("use_backend %[str(198.51.100.1),map_ip(n.map,api)]", "any", "api"),
        ("use_backend %[path,map_beg(p.map)]", "/a/c", "api"),
    ];
    for (lines, host, expected) in table {
        let target = if host.starts_with('/') { *host } else { "/" };
        let request = Request { target, ..with(&[("Host", host)]) };
        assert_eq!(choose(lines, &request), *expected, "{lines} for {host}");
    }
}

#[test]
fn many_hosts_are_one_look_up_and_the_first_rule_wins() {
    let mut lines = String::new();
    for index in 0..1000 {
        let backend = ["web", "api", "x"][index % 3];
        lines += &format!("acl h{index} hdr(host) -i host{index}.example\nuse_backend {backend} if h{index}\n");
    }
    // A second rule for the same host comes too late; a rule of another kind is a separate step.
    lines +=
        "use_backend x if { hdr(host) -i host0.example }\nuse_backend api if { path_beg /api }\ndefault_backend web\n";
    let (program, names) = program(&lines);
    assert_eq!(program.steps(), 2);
    let mut scratch = Scratch::default();
    let mut ask = |host: &'static str, target: &'static str| {
        let request = Request { target, ..with(&[("Host", host)]) };
        match program.backend(&request, &mut scratch) {
            Choice::Backend(index) => names[index].clone(),
            Choice::None => String::new(),
        }
    };
    assert_eq!(ask("host0.example", "/"), "web");
    assert_eq!(ask("HOST1.Example", "/"), "api");
    assert_eq!(ask("host998.example", "/api"), "x");
    assert_eq!(ask("other.example", "/api"), "api");
    assert_eq!(ask("other.example", "/"), "web");
    // If there are several values, the first rule wins, whatever the position of its value.
    assert_eq!(ask("host2.example, host1.example", "/"), "api");
}

#[test]
fn rules_come_one_by_one_and_buffers_stay() {
    let (program, _) = program(
        "http-request set-header X %[src]:%[dst_port]-%[hdr(host),lower,regsub(e,E,g)]-%HM%%\n\
         http-request deny if { path_beg /no }\nhttp-request set-path /x if { path /old }\nredirect scheme https if !{ ssl_fc }\n\
         monitor fail if { nbsrv(web) lt 1 }",
    );
    let mut scratch = Scratch::default();
    let request = Request { target: "/old", ..with(&[("Host", "EXAMPLE.org, second")]) };
    let (first, rule) = program.next(List::Request, 0, &request, &mut scratch).expect("a rule");
    let Action::SetHeader(_, format) = &rule.action else { panic!("{rule:?}") };
    let mut out = Vec::new();
    format.render(&request, &mut scratch, &mut out);
    assert_eq!(String::from_utf8_lossy(&out), "192.0.2.1:8443-sEcond-GET%");
    let (second, rule) = program.next(List::Request, first + 1, &request, &mut scratch).expect("a rule");
    assert!(matches!(rule.action, Action::SetPath(_)) && second == 2);
    assert!(program.next(List::Request, second + 1, &request, &mut scratch).is_none());
    assert!(program.next(List::Redirects, 0, &request, &mut scratch).is_some());
    assert!(!program.monitor_fails(&request, &mut scratch));
    assert!(program.monitor_fails(&Request { up: 0, ..Request::default() }, &mut scratch));
    let before = scratch.capacity();
    for _ in 0..100 {
        out.clear();
        format.render(&request, &mut scratch, &mut out);
        program.backend(&request, &mut scratch);
    }
    assert_eq!(scratch.capacity(), before, "buffers grow");
}

#[test]
fn replacements_have_groups() {
    let replaced = |pattern: &str, replacement: &str, all, text: &str| {
        let regex = crate::haproxy::rules::Regex::new(pattern, false).expect("an expression");
        let mut out = Vec::new();
        regex.replace(replacement.as_bytes(), all, text.as_bytes(), &mut out);
        String::from_utf8(out).expect("text")
    };
    let table = [
        ("^/old/(.*)$", r"/new/\1", false, "/old/a/b", "/new/a/b"),
        ("(a)(b)?", r"[\1\2\0]", true, "abac", "[abab][aa]c"),
        ("a", "-", false, "banana", "b-nana"),
        ("a", "-", true, "banana", "b-n-n-"),
        ("x*", "-", true, "ab", "-a-b-"),
        ("z", "-", true, "ab", "ab"),
        ("a", r"\\", false, "a", r"\"),
    ];
    for (pattern, replacement, all, text, expected) in table {
        assert_eq!(replaced(pattern, replacement, all, text), expected, "{pattern} {replacement} {text}");
    }
}
