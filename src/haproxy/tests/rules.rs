//! Tests of ACLs, conditions, samples and actions.

use super::*;
use crate::haproxy::Verdict;
use crate::haproxy::rules::{Action, BackendTarget, Fetch, Matching, RedirectKind, SampleType, TextMatch};
use Treatment::{Ignored, Lost, Mapped, Refused, Wrong};

#[test]
fn rules_are_taken_whole() {
    let lines = [
        "acl a hdr(host) -i www.example.org api.example.org",
        "acl a hdr_beg(host) -i www.",
        "acl a hdr_dom(host) -m dom example.org",
        "acl a path_beg /a /b",
        "acl a path,lower -m end .png",
        "acl a path_reg ^/[a-z]+\\.php$",
        "acl a req.hdr(user-agent),lower -m sub bot",
        "acl a url_param(id) -m found",
        "acl a src 10.0.0.0/8 192.168.1.1 ::1",
        "acl a src -f hosts.lst",
        "acl a hdr(host) -i -f hosts.lst extra.example.org",
        "acl a dst_port 80 443 8000:8100",
        "acl a method POST PUT",
        "acl a nbsrv(web) lt 1",
        "acl a hdr_cnt(x-forwarded-for) gt 1",
        "acl a req.cook(session) -m found",
        "acl a http_auth(users)",
        "use_backend web if { path_beg /x } !METH_POST or { hdr(host) -m beg api } || TRUE",
        "use_backend web unless HTTP_1.1",
        "use_backend %[req.hdr(host),lower,map(hosts.map,web)]",
        "http-request set-header X-Proto https if { ssl_fc }",
        "http-request set-header X-Id %[unique-id]",
        "http-request add-header X-A \"%[src]:%[src_port] %ci %%\"",
        "http-request replace-header Host (.*)\\.old (.*) if TRUE",
        "http-request replace-path /old/(.*) /new/\\1",
        "http-request set-path /x%[path]",
        "http-request redirect location /login code 303 if !{ req.cook(s) -m found }",
        "http-request redirect prefix https://%[hdr(host)] drop-query append-slash",
        "http-request deny status 403 content-type text/plain string no hdr X-A b",
        "http-request return status 200 content-type text/plain lf-string \"%[src]\" if { path /ip }",
        "http-request auth realm Private if !{ http_auth(users) }",
        "http-request set-var(txn.host) req.hdr(host),field(1,:)",
        "http-request set-path '%[path,regsub(\"^/(a|b)\",/c,g)]'",
        "http-request del-header ^X- -m reg",
        "http-response set-header X-B %[res.hdr(server)]",
        "http-response del-header Server",
        "http-response set-status 503 reason Busy if { status 500 }",
        "http-after-response set-header Strict-Transport-Security max-age=1",
        "tcp-request connection reject if { src -f hosts.lst }",
        "tcp-request content accept if WAIT_END",
        "redirect prefix http://x code 301 if { hdr(host) x }",
        "monitor fail if { nbsrv(web) lt 1 }",
    ];
    for line in lines {
        // Names are not addresses: those two lines are tested with a list of hosts below.
        if line.contains("src -f") {
            continue;
        }
        let loaded = frontend(&format!("{line}\nuserlist users\n user a insecure-password b\n"));
        assert!(remarks(&loaded).is_empty(), "{line}: {:#?}", remarks(&loaded));
        assert_eq!(loaded.verdict(false), Verdict::Whole, "{line}");
    }
}

#[test]
fn rules_are_judged() {
    let table: &[(&str, Treatment, &str)] = &[
        ("acl a path_bgn /x", Wrong, "no sample fetch"),
        ("acl a hdr_bog(host) x", Wrong, "no sample fetch"),
        ("acl a path", Wrong, "expected a value"),
        ("acl a path -m bgn /x", Wrong, "no method"),
        ("acl a", Wrong, "expected a criterion"),
        ("acl a!b path /", Wrong, "no name of an ACL"),
        ("acl or path /", Wrong, "a word of conditions"),
        ("acl a dst_port http", Wrong, "no number"),
        ("acl a dst_port gt", Wrong, "a number after the operator"),
        ("acl a src 10.0.0.0/99", Wrong, "no address"),
        ("acl a str(a,b) -m sub a", Wrong, "at most 1 arguments"),
        ("acl a path,field(1,/,2) -m sub a", Lost, "at most 2 arguments"),
        ("acl a query(with_qm) -m sub a", Wrong, "not read"),
        ("acl a path_reg (", Lost, "cannot be used"),
        ("acl a path_reg ^(?!/x)", Lost, "look-ahead"),
        ("acl a ssl_c_verify 0", Lost, "certificates"),
        ("acl a src_kbytes_in gt 0", Lost, "does not have this fetch"),
        ("acl a src -f missing.lst", Lost, "cannot be read"),
        ("use_backend web if a", Wrong, "no ACL \"a\""),
        ("use_backend web if { path /x", Wrong, "expected }"),
        ("use_backend web if { }", Wrong, "between { and }"),
        ("use_backend web if", Wrong, "expected an ACL"),
        ("use_backend web if TRUE or", Wrong, "both sides"),
        ("use_backend web if !", Wrong, "expected an ACL"),
        ("use_backend web when TRUE", Wrong, "expected if or unless"),
        ("use_backend web if { path_beg /x } path_beg", Wrong, "no ACL"),
        ("use_backend wbe if TRUE", Wrong, "web is similar"),
        ("use_backend web if { ssl_c_used }", Refused, "certificates"),
        ("use_backend %[req.hdr(host),map(missing.map)]", Refused, "cannot be read"),
        ("use_backend %[lua.choose]", Refused, "no Lua"),
        ("http-request dney", Wrong, "deny is similar"),
        ("http-request deny status 99", Wrong, "no status"),
        ("http-request deny if { ssl_c_used }", Refused, "certificates"),
        ("http-request deny if { url_param(sid,;) x }", Wrong, "another delimiter"),
        ("http-request set-header X %[ssl_c_s_dn]", Refused, "certificates"),
        ("http-response set-header X %[ssl_c_s_dn]", Lost, "certificates"),
        ("http-request set-header X", Wrong, "expected a value"),
        ("http-request set-header X: z", Refused, "no name of a header"),
        ("http-request set-header X %[path", Wrong, "expected ]"),
        ("http-request set-header X %[path,lowr]", Wrong, "lower is similar"),
        ("http-request set-header X %zz", Wrong, "nothing in a format"),
        ("http-request set-status 200", Wrong, "does not stand in this list"),
        ("http-request redirect code 301", Wrong, "expected location"),
        ("http-request redirect location / code 200", Wrong, "no status of a redirect"),
        ("http-request lua.check", Refused, "no Lua"),
        ("http-request use-service prometheus-exporter if { path /metrics }", Mapped, "own metrics"),
        ("http-request set-nice 5", Ignored, "order of their events"),
        ("http-request capture req.hdr(host) len 10", Mapped, "capture.req.hdr"),
        ("http-response capture res.hdr(x) len 10", Wrong, "write id"),
        ("http-request capture path size 10", Wrong, "expected len"),
        ("http-request return lf-file none", Refused, "none cannot be read"),
        ("http-request set-header X %[path,map_beg_int(hosts.map)]", Refused, "does not have this converter"),
        ("http-request deny if { internal.htx.data 1 }", Refused, "does not have this fetch"),
        ("tcp-request content use-service lua.x", Refused, "prometheus-exporter only"),
        ("http-request set-header X %[capture.req.hdr(x)]", Wrong, "the number of a slot"),
        ("http-request set-var(host) path", Wrong, "no variable"),
        ("http-request set-var(txn.a path", Wrong, "scope.name"),
        ("http-response set-header X %[res.body]", Lost, "bodies"),
        ("redirect", Wrong, "expected location"),
        ("reqtarpit ^x", Refused, "use http-request"),
    ];
    for (line, treatment, part) in table {
        expect_one(line, &frontend(line), *treatment, part);
    }
    let both = frontend("acl a ssl_c_used\nuse_backend web if a\nhttp-response set-header X y if a");
    let found: Vec<_> = remarks(&both).into_iter().map(|(_, treatment, _)| treatment).collect();
    assert_eq!(found, [Lost, Refused, Lost], "by what the rule does");
    assert_eq!(both.verdict(false), Verdict::Not { refused: 1, wrong: 0 });
}

#[test]
fn acls_are_typed() {
    let loaded = frontend(
        "acl a hdr_beg(Host) -i WWW. -- -i\nacl a path,lower -m sub x\nacl b url_param(n) -m int ge 5\nacl c hdr(host) -f hosts.lst\n\
         acl d hdr_beg(host),lower www.x",
    );
    assert!(remarks(&loaded).is_empty(), "{:#?}", remarks(&loaded));
    let acls = &loaded.model.proxies[0].acls;
    assert_eq!(
        acls.iter().map(|acl| (acl.name.as_str(), acl.tests.len())).collect::<Vec<_>>(),
        [("a", 2), ("b", 1), ("c", 1), ("d", 1)]
    );
    let Matching::Text(TextMatch::Begin, patterns) = &acls[0].tests[0].matching else { panic!("{acls:?}") };
    assert_eq!(&*patterns[0].text, b"www.");
    assert_eq!(patterns.len(), 3, "after the first value a flag is a value");
    assert!(matches!(&acls[0].tests[0].sample.fetch, Fetch::Header { name, .. } if name == "host"));
    assert_eq!(acls[1].matching(), Matching::Int(vec![(5, i64::MAX)]));
    assert!(matches!(&acls[2].tests[0].matching, Matching::Text(TextMatch::Equal, hosts) if hosts.len() == 2));
    assert!(
        matches!(acls[3].matching(), Matching::Text(TextMatch::Equal, _)),
        "with a converter the suffix counts no more"
    );
    assert_eq!(acls[3].tests[0].sample.value_type(), SampleType::Text);
}

impl crate::haproxy::rules::Acl {
    fn matching(&self) -> Matching {
        self.tests[0].matching.clone()
    }
}

#[test]
fn actions_are_typed() {
    let loaded = frontend(
        "http-request redirect scheme https code 301 if !{ ssl_fc }\nuse_backend web if TRUE\nuse_backend %[path]\n\
         redirect location /x drop-query set-cookie A=b",
    );
    assert!(remarks(&loaded).is_empty(), "{:#?}", remarks(&loaded));
    let rules = &loaded.model.proxies[0].rules;
    let Action::Redirect(redirect) = &rules.request[0].action else { panic!("{rules:?}") };
    assert!(matches!(&redirect.kind, RedirectKind::Scheme(scheme) if scheme.as_text() == Some("https")));
    assert_eq!(redirect.status, 301);
    let condition = rules.request[0].condition.as_ref().expect("a condition");
    assert!(condition.any[0][0].negated && !condition.negated);
    assert_eq!(rules.use_backend[0].target, BackendTarget::Named("web".into()));
    assert!(matches!(rules.use_backend[1].target, BackendTarget::Dynamic(_)));
    let Action::Redirect(redirect) = &rules.redirects[0].action else { panic!("{rules:?}") };
    assert_eq!((redirect.drop_query, redirect.set_cookie.as_deref()), (true, Some("A=b")));
}
