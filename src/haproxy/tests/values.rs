//! Samples, converters, ACLs and formats as HAProxy 2.6 reads them: most rows were compared with it.

use super::serving::Served;

/// What an expression makes of a request with this line and these header lines.
fn render(format: &str, line: &str, lines: &str) -> String {
    let rules =
        format!("http-request set-var-fmt(txn.out) \"{format}\"\nhttp-request set-header X-Out <%[var(txn.out)]>");
    out_of(&rules, line, lines)
}

/// The value between `<` and `>` of the header `X-Out` that rules make.
fn out_of(rules: &str, line: &str, lines: &str) -> String {
    let mut served = Served::new(rules, "");
    served.decide(line, lines);
    let head = served.request();
    let out = head.split("X-Out: <").nth(1).and_then(|rest| rest.split(">;").next());
    out.unwrap_or_else(|| panic!("{rules}: {head}")).to_owned()
}

/// Whether a criterion holds for a request with these header lines.
fn holds(criterion: &str, lines: &str) -> bool {
    let mut served = Served::new(&format!("http-request set-header X-Out yes if {{ {criterion} }}"), "");
    served.decide("GET /", lines);
    served.request().contains("X-Out: yes; ")
}

#[test]
fn texts_are_read_as_numbers() {
    let table = [
        ("hdr(x),add(1)", "5x", "6"),
        ("hdr(x),add(1)", "x5", "1"),
        ("hdr(x),add(1)", "", ""),
        ("hdr(x),add(1)", "+5", "6"),
        ("hdr(x),mul(2)", "-4y", "-8"),
        ("hdr(x),add(0)", "99999999999999999999", "9223372036854775807"),
        ("hdr(x),add(0)", "10.0.0.1", "10"),
        ("hdr(x),bool", "2x", "1"),
        ("hdr(x),not", "yes", "1"),
        ("hdr(x),iif(a,b)", "1:5", "a"),
        ("hdr(x),iif(a,b)", "true", "b"),
        ("hdr(x),iif(a,b)", "", ""),
        // Numbers of headers and cookies are read in another way: 32 bits, and what is below the digits counts.
        ("hdr_val(x)", "5x", "5"),
        ("hdr_val(x)", "x5", "0"),
        ("hdr_val(x)", "", "0"),
        ("hdr_val(x)", "+5", "-45"),
        ("hdr_val(x)", "1.5", "85"),
        ("hdr_val(x)", "99999999999999999999", "1661992959"),
        ("hdr_val(x)", "a, 7", "7"),
    ];
    for (sample, value, expected) in table {
        assert_eq!(
            render(&format!("%[{sample}]"), "GET /", &format!("X: {value}\r\n")),
            expected,
            "{sample} of {value:?}"
        );
    }
    let table = [
        ("hdr(x) -m int 5", "5x", true),
        ("hdr(x) -m int 0", "yes", true),
        ("hdr(x) -m int :5", "-1", true),
        ("hdr(x) -m int 5:", "4", false),
        ("hdr(x) -m int ge 0", "a, b", true),
        ("hdr(x) -m int gt 100", "99999999999999999999", true),
        ("hdr(x) -m int 0", "", false),
        ("hdr(x) -m bool", "1x", true),
        ("hdr(x) -m bool", "true", false),
        ("hdr_val(x) ge 0", "x", true),
        ("hdr_val(x) -m found", "x", true),
    ];
    for (criterion, value, expected) in table {
        assert_eq!(holds(criterion, &format!("X: {value}\r\n")), expected, "{criterion} of {value:?}");
    }
}

#[test]
fn texts_are_read_as_addresses() {
    let table = [
        ("hdr_ip(x)", "10.0.0.1:80", "10.0.0.1"),
        ("hdr_ip(x)", "10.0.0.1:x", ""),
        ("hdr_ip(x)", "010.0.0.1", "10.0.0.1"),
        ("hdr_ip(x)", "10.0.0.1x", ""),
        ("hdr_ip(x)", "10.1", ""),
        ("hdr_ip(x)", "256.0.0.1", ""),
        ("hdr_ip(x)", "1.2.3.4.5", ""),
        ("hdr_ip(x)", "::1", "::1"),
        ("hdr_ip(x)", "[::1]", ""),
        ("hdr_ip(x)", "[::1]:80", ""),
        ("hdr_ip(x)", "::ffff:10.0.0.1", "::ffff:10.0.0.1"),
        ("hdr_ip(x)", "1.2.3.4, 5.6.7.8:90", "5.6.7.8"),
        ("hdr_ip(x,1)", "1.2.3.4, 5.6.7.8:90", "1.2.3.4"),
        ("hdr(x),ipmask(8)", "10.1.2.3/8", "10.0.0.0"),
        ("hdr(x),ipmask(8)", "::1", ""),
        ("hdr(x),ipmask(8,16)", "2001:db8::1", "2001::"),
        ("hdr(x),ipmask(8)", "::ffff:10.1.2.3", "10.0.0.0"),
        ("src", "", "192.0.2.1"),
    ];
    for (sample, value, expected) in table {
        assert_eq!(
            render(&format!("%[{sample}]"), "GET /", &format!("X: {value}\r\n")),
            expected,
            "{sample} of {value:?}"
        );
    }
    assert!(
        holds("hdr(x) -m ip 10.0.0.1", "X: 10.0.0.1:80\r\n") && !holds("hdr_ip(x) 10.0.0.0/8", "X: [10.0.0.1]\r\n")
    );
}

#[test]
fn one_of_several_values_counts_outside_of_acls() {
    let table = [
        ("%[hdr(x),bytes(1)]", "GET /", "X: \"a,b\", 5\r\n", ""),
        ("%[hdr(x)]", "GET /", "X: a, b\r\nX: c,,d\r\n", "d"),
        ("%[req.fhdr(x)]", "GET /", "X: a, b\r\nX: c,,d\r\n", "c,,d"),
        ("%[urlp(x)]", "GET /a?x=1&x=2", "", "1"),
        ("%[urlp(x)]", "GET /a?a.b=1?x=9", "", "9"),
        ("%[urlp(x),url_dec]", "GET /a?x=%41%zz", "", ""),
        ("%[path,url_dec]", "GET /%41+", "", "/A+"),
        ("%[cook(a)]", "GET /", "Cookie: a=1; b=2\r\nCookie: a=3\r\n", "3"),
        ("%[cook()]", "GET /", "Cookie: a=1; b=2\r\n", "1"),
        ("%[cook(a)]", "GET /", "Cookie: a=\"x;y\"; b=2\r\n", "\"x;y\""),
        ("%[cook_val(a)]", "GET /", "Cookie: a=5; a=x\r\n", "0"),
        ("%[cook_cnt(a)]", "GET /", "Cookie: a=1;a=2;a\r\n", "2"),
        ("%[hdr(x),host_only]", "GET /", "X: EXAMPLE.org:80\r\n", "example.org"),
        ("%[hdr(x),host_only]", "GET /", "X: [::1]:80\r\n", "[::1]"),
        ("%[hdr(x),port_only]", "GET /", "X: [::1]:80\r\n", "80"),
        ("%[hdr(x),port_only]", "GET /", "X: a\r\n", "0"),
    ];
    for (format, line, lines, expected) in table {
        assert_eq!(render(format, line, lines), expected, "{format} of {line} {lines:?}");
    }
}

#[test]
fn formats_have_flags() {
    let table = [
        ("%{+Q}[hdr(x)]", "a\"b", "\"a\"b\""),
        ("%{+Q,+E}[hdr(x)]", "a\"]\\", "\"a\\\"\\]\\\\\""),
        ("%{+Q}[hdr(y)]", "", "\"\""),
        ("%{+M}[hdr(y)]", "", "-"),
        ("%{+X}[int(255)]", "", "255"),
        ("%{+X}ci:%{+X}cp", "", "C0000201:0FA0"),
        ("%{+X}o%ci %cp%{-X}o %cp", "", "C0000201 0FA0 4000"),
        ("%{+Q}o%HM %f", "", "\"GET\" \"f\""),
        ("%HM %HU %HP %HPO %HQ %HV", "", "GET /p?q=1 /p /p ?q=1 HTTP/1.1"),
        ("%r", "", "GET /p?q=1 HTTP/1.1"),
        ("%b %s", "", "f <NOSRV>"),
        ("%Ts %ms", "", "0 000"),
    ];
    for (format, value, expected) in table {
        assert_eq!(render(format, "GET /p?q=1", &format!("X: {value}\r\n")), expected, "{format}");
    }
    // In messages samples have neither quotes nor a dash.
    let table = [
        ("%{+Q}[hdr(x)]", "ab", "ab"),
        ("%{+Q,+E}[hdr(x)]", "a\"]", "a\\\"\\]"),
        ("%{+M}[hdr(y)]", "", ""),
        ("%{+Q}o%HM %[path]", "", "\"GET\" /p"),
    ];
    for (format, value, expected) in table {
        let rule = format!("http-request set-header X-Out \"<{format}>\"");
        assert_eq!(out_of(&rule, "GET /p?q=1", &format!("X: {value}\r\n")), expected, "{format}");
    }
    let loaded = super::frontend("http-request set-header X %{+Z}[path]");
    super::expect_one("%{+Z}", &loaded, crate::haproxy::Treatment::Refused, "no flag but Q, E, X and M");
}

#[test]
fn flags_of_acls_are_read() {
    let x = |value: &str| format!("X: {value}\r\n");
    // Only the first words of a map's lines are values.
    assert!(holds("hdr(x) -M -f hosts.map", &x("www.example.org")));
    assert!(!holds("hdr(x) -f hosts.map", &x("www.example.org")));
    assert!(holds("hdr(x) -f hosts.map", &x("www.example.org web")));
    assert!(holds("hdr(x) -n -u 5 a", &x("a")) && !holds("hdr(x) -u 5 a", &x("5")));
    assert!(holds("hdr(x) -m str -- -f", &x("-f")) && holds("hdr(x) a -i", &x("-i")));
    // The methods that HAProxy knows have their case.
    assert!(!holds("method -i get", "") && holds("method -i GET", "") && holds("method -m str -i get", ""));
    for flag in ["-x a", "-I a", "-5"] {
        let loaded = super::frontend(&format!("http-request deny if {{ hdr(x) {flag} }}"));
        super::expect_one(flag, &loaded, crate::haproxy::Treatment::Wrong, "is no flag of an ACL");
    }
}

#[test]
fn many_values_are_compared_as_few() {
    let many = |values: &dyn Fn(usize) -> String| (0..300).map(values).collect::<Vec<_>>().join(" ");
    let paths = many(&|number| format!("/p{number}/"));
    let nets = many(&|number| format!("10.{}.{}.0/24", number / 256, number % 256));
    for (criterion, value, expected) in [
        (format!("hdr(x) -m beg {paths}"), "/p299/a", true),
        (format!("hdr(x) -m beg {paths}"), "/p299", false),
        (format!("hdr(x) -m beg {paths}"), "/P7/", false),
        (format!("hdr(x) -m beg -i {paths}"), "/P7/a", true),
        (format!("hdr_ip(x) {nets}"), "10.1.43.9", true),
        (format!("hdr_ip(x) {nets}"), "10.1.44.9", false),
        (format!("hdr_ip(x) {nets}"), "::ffff:10.0.0.1", true),
    ] {
        assert_eq!(holds(&criterion, &format!("X: {value}\r\n")), expected, "{value}");
    }
}

/// What grows with each rule or converter stays within bounds.
#[test]
fn texts_have_a_longest() {
    let doubling: String = (0..40).map(|_| "http-request set-var-fmt(txn.a) %[var(txn.a)]%[var(txn.a)]\n").collect();
    let mut served = Served::new(&format!("http-request set-var(txn.a) str(xx)\n{doubling}"), "");
    served.decide("GET /", "");
    assert!(served.work.capacity() < 8 << 20, "{}", served.work.capacity());
    let regsub = ",regsub(x,xx,g)".repeat(40);
    assert_eq!(render(&format!("%[str(x){regsub},length]"), "GET /", ""), (64 << 10).to_string());
}
