use super::*;

fn faults(text: &str) -> Vec<String> {
    match parse(text.as_bytes(), Path::new("")) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.faults.iter().map(Fault::to_string).collect(),
    }
}

#[test]
fn a_good_file() {
    let text = r#"{
        "frontends": {
            "www.Example.com.": ["mywebsite", "http://10.0.0.1:80", "http://app.internal:8080/x"],
            "*.example.com": ["", "http://[::1]"],
            "[2001:DB8::1]": ["by address", "http://10.0.0.1"],
            "under_score.x": ["only an identifier"],
            "split.x": ["a\r\nSet-Cookie: s=1\u0085"],
            "\u002a": ["rest", "http://10.0.0.1:80", "http://10.0.0.1:80"]
        }
    }"#;
    let routes = parse(text.as_bytes(), Path::new("")).expect("a good file");
    assert_eq!(routes.warnings, []);
    let mut found: Vec<_> = routes
        .records
        .iter()
        .map(|(pattern, record)| {
            let urls: Vec<_> = record.backends.iter().map(BackendUrl::as_str).collect();
            format!("{pattern} {:?} {}", record.id, urls.join(" "))
        })
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            r#"* "rest" http://10.0.0.1:80 http://10.0.0.1:80"#,
            r#"*.example.com "" http://[::1]"#,
            r#"[2001:db8::1] "by address" http://10.0.0.1"#,
            r#"split.x "a\\r\\nSet-Cookie: s=1\\u{85}" "#,
            r#"under_score.x "only an identifier" "#,
            r#"www.example.com "mywebsite" http://10.0.0.1:80 http://app.internal:8080/x"#,
        ]
    );
}

#[test]
fn a_json_error_is_reported_with_its_position() {
    let table = [
        ("", "line 1, column 1: EOF while parsing a value"),
        ("[]", "line 1, column 1: found a list, expected an object"),
        ("{\n \"frontends\": {\n  \"a\": [\"x\",]\n }\n}", "line 3, column 13: expected value"),
        ("{\"frontends\":\n", "line 1, column 14: EOF while parsing a value"),
        ("{\"frontends\": {\"a\": [\"x\"]}", "line 1, column 26: EOF while parsing an object"),
        ("{\"frontends\": {}}\n}", "line 2, column 1: trailing characters"),
        ("{\"frontends\": {\"a\": [\"x\n\"]}}", "line 1, column 23: control character"),
        ("{\"frontends\": {\"a\" [\"x\"]}}", "line 1, column 20: expected `:`"),
        ("{\"é\": tru, \"b\": 1}", "line 1, column 10: expected ident"),
        ("{frontends: {}}", "line 1, column 2: key must be a string"),
    ];
    for (text, expected) in table {
        let found = faults(text);
        assert_eq!(found.len(), 1, "{text:?}: {found:?}");
        assert!(found[0].starts_with(expected), "{text:?}: {found:?}");
    }
}

#[test]
fn an_invalid_byte_is_reported_with_its_position() {
    let faults = parse(b"{\n\"\xC3\xA9\xFF\": 1}", Path::new("")).expect_err("not UTF-8").faults;
    assert_eq!(faults.iter().map(Fault::to_string).collect::<Vec<_>>(), ["line 2, column 3: a byte that is not UTF-8"]);
}

#[test]
fn every_fault_of_meaning_is_found_in_one_go() {
    let text = "{
  \"frontends\": {
    \"a.example\": [\"x\", \"10.0.0.1:80\", 7, \"ftp://b\"],
    \"b.example\": [],
    \"c.example\": \"http://10.0.0.1\",
    \"d.example\": [null, \"http://10.0.0.1:99999\"],
    \"é.example\": [\"x\", {}], \"good.example\": [\"x\", \"http://10.0.0.1\"],
    \"*example\": [\"x\"], \"www.*.example\": [\"x\"], \"e.example:80\": [\"x\"],
    \"f..example\": [\"x\"], \"\": [\"x\"], \"g example\": [\"x\"], \"*.[::1]\": [\"x\"],
    \"A.EXAMPLE\": [\"x\"], \"\\ud800\": [\"x\"], \"h\": [\"\\ud800\"]
  }
}";
    let list = "expected a list of an identifier and URLs of backends";
    let star = "a star stands alone or as the first label, as in *.example.com";
    let name = "expected a host name, *.suffix or *";
    assert_eq!(
        faults(text),
        [
            r#"line 3, column 24: frontends["a.example"][1]: found "10.0.0.1:80", expected http://host:port or https://host:port"#
                .to_owned(),
            r#"line 3, column 39: frontends["a.example"][2]: found a number, expected the URL of a backend in quotes"#
                .into(),
            r#"line 3, column 42: frontends["a.example"][3]: found "ftp://b", expected the scheme http:// or https://"#.into(),
            format!(r#"line 4, column 18: frontends["b.example"]: found an empty list, {list}"#),
            format!(r#"line 5, column 18: frontends["c.example"]: found a string, {list}"#),
            r#"line 6, column 19: frontends["d.example"][0]: found null, expected an identifier in quotes"#.into(),
            concat!(
                r#"line 6, column 25: frontends["d.example"][1]: found "http://10.0.0.1:99999", "#,
                "expected a port from 1 to 65535"
            )
            .into(),
            r#"line 7, column 5: frontends["é.example"]: expected the ASCII form of the name (xn--…)"#.into(),
            r#"line 7, column 24: frontends["é.example"][1]: found an object, expected the URL of a backend in quotes"#
                .into(),
            format!(r#"line 8, column 5: frontends["*example"]: {star}"#),
            format!(r#"line 8, column 24: frontends["www.*.example"]: {star}"#),
            r#"line 8, column 48: frontends["e.example:80"]: a host has no scheme and no port here"#.into(),
            format!(r#"line 9, column 5: frontends["f..example"]: {name}"#),
            format!(r#"line 9, column 26: frontends[""]: {name}"#),
            r#"line 9, column 37: frontends["g example"]: a host name has letters, digits, '-', '_' and '.'"#.into(),
            r#"line 9, column 57: frontends["*.[::1]"]: a host has no scheme and no port here"#.into(),
            r#"line 10, column 5: frontends["A.EXAMPLE"]: stands twice, line 3 has it already"#.into(),
            r#"line 10, column 25: frontends: found a name that is not Unicode text"#.into(),
            r#"line 10, column 48: frontends["h"][0]: found a string, expected an identifier in quotes"#.into(),
        ]
    );
}

#[test]
fn patterns_that_no_host_is_looked_up_under_are_named() {
    for good in ["a.example", "*.example", "*", "[::1]", "under_score.x", "localhost"] {
        assert_eq!(key_pattern(good), KeyPattern::AsLookedUp, "{good}");
    }
    for (other, expected) in [("Shop.Example", "shop.example"), ("shop.example.", "shop.example"), ("*.A", "*.a")] {
        assert_eq!(key_pattern(other), KeyPattern::Spelling(expected.to_owned()), "{other}");
    }
    for (bad, expected) in [
        ("shop.example:80", "no port"),
        ("http://shop.example", "no port"),
        ("*shop.example", "a star stands alone"),
        ("*.a.b.c.d.e.f", "more than 5 labels"),
        ("*.A.b.c.d.e.f", "more than 5 labels"),
        ("", "expected a host name"),
    ] {
        let KeyPattern::Never(problem) = key_pattern(bad) else { panic!("{bad} is none") };
        assert!(problem.contains(expected), "{bad}: {problem}");
    }
}

#[test]
fn the_top_level() {
    let table: &[(&str, &[&str])] = &[
        ("{}", &["line 1, column 1: frontends: is missing, expected an object of lists"]),
        (r#"{"frontends": 1}"#, &["line 1, column 15: frontends: found a number, expected an object of lists"]),
        (r#"{"frontends": {}, "frontends": {}}"#, &["line 1, column 19: frontends: stands twice"]),
        (r#"{"frontends": {}}"#, &[]),
    ];
    for (text, expected) in table {
        assert_eq!(faults(text), *expected, "{text}");
    }
}

#[test]
fn what_is_odd_but_legal_is_a_warning() {
    let text = r#"{"certificate": {}, "frontends": {
"a": ["http://10.0.0.1"],
"*.a.b.c.d.e.f": ["x"], "*.b.c.d.e.f": ["x"]}}"#;
    let routes = parse(text.as_bytes(), Path::new("")).expect("legal");
    assert_eq!(routes.records.len(), 3);
    assert_eq!(
        routes.warnings.iter().map(Fault::to_string).collect::<Vec<_>>(),
        [
            r#"line 1, column 2: "certificate": is unknown and ignored"#,
            r#"line 2, column 7: frontends["a"][0]: is a URL, but item 0 of a list is an identifier and no backend"#,
            r#"line 3, column 1: frontends["*.a.b.c.d.e.f"]: no host is looked up under a star and more than 5 labels"#,
        ]
    );
}

#[test]
fn faults_without_end_are_counted_and_long_values_are_cut() {
    let items = format!("\"{}\",", "é".repeat(1_000)).repeat(MAX_FAULTS + 7);
    let text = format!("{{\"frontends\": {{\"a\": [\"x\",{}]}}}}", items.trim_end_matches(','));
    let faults = parse(text.as_bytes(), Path::new("")).expect_err("faults");
    assert_eq!((faults.faults.len(), faults.more), (MAX_FAULTS, 7));
    assert!(faults.faults[0].problem.chars().count() < 120, "{}", faults.faults[0].problem);
}
