//! Parsing of `buckets` and `classify`, and their faults.

use super::spec;
use crate::shaper::{Rules, Spec};

fn fault_of<T>(result: Result<T, Vec<crate::shaper::Fault>>, text: &str) -> String {
    match result {
        Ok(_) => panic!("{text} has no fault"),
        Err(faults) => faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

#[test]
fn faults_of_buckets_name_their_place() {
    let table = [
        ("[]", "buckets: found a list, expected an object of buckets"),
        ("{", "buckets: no JSON: EOF"),
        (r#"{"a": 5}"#, "buckets[\"a\"]: found 5, expected a share"),
        (r#"{"a": null}"#, "buckets[\"a\"]: found null, expected a share"),
        (r#"{"a": "5"}"#, "buckets[\"a\"]: found \"5\", expected the assured and the greatest share"),
        (r#"{"a": {"share": 5}}"#, "buckets[\"a\"].share: found 5, expected a text"),
        (r#"{"a": {"buckets": {}}}"#, "buckets[\"a\"]: has no \"share\""),
        (r#"{"a": {"share": "5 %", "buckets": []}}"#, "buckets[\"a\"].buckets: found a list"),
        (
            r#"{"a": {"share": "5 %", "buckets": {"b": "101 %"}}}"#,
            "buckets[\"a\"].buckets[\"b\"]: found \"101 %\", the rate",
        ),
        (
            r#"{"a": {"share": "5 %", "queueLimit": -1}}"#,
            "buckets[\"a\"].queueLimit: found -1, expected a whole number",
        ),
        (r#"{"a": {"share": "5 %", "queueLimit": 1.5}}"#, "buckets[\"a\"].queueLimit: found 1.5"),
        (r#"{"a": {"share": "5 %", "queueTimeout": 0}}"#, "buckets[\"a\"].queueTimeout: found 0, expected seconds"),
        (r#"{"a": {"share": "5 %", "limit": 1}}"#, "buckets[\"a\"].limit: is not known here"),
        (r#"{"a": "5 %", "a": "5 %"}"#, "buckets[\"a\"]: another bucket of the tree has this name"),
        (r#"{"": "5 %"}"#, "buckets[\"\"]: a name has 1 to 64 visible ASCII characters"),
        (r#"{"a\n": "5 %"}"#, "buckets[\"a\\n\"]: a name has"),
        (r#"{"root": "5 %"}"#, "buckets[\"root\"]: the root of the tree is no bucket"),
        (
            r#"{"a": "60..70 %", "b": "40.5..70 %"}"#,
            "buckets[\"b\"]: the rates of this bucket and its siblings add up to 100.50 %",
        ),
    ];
    for (text, expected) in table {
        let found = fault_of(Spec::parse(text), text);
        assert!(found.starts_with(expected) && !found.contains('\n'), "{text}: expected {expected}, found {found}");
    }
}

#[test]
fn all_faults_are_found_at_once_and_there_are_limits() {
    let found = fault_of(Spec::parse(r#"{"a": "x", "b": {"share": "200 %", "queueLimit": "y"}, "root": "1 %"}"#), "");
    assert_eq!(found.lines().count(), 4, "{found}");
    let deep = (0..9)
        .fold("{}".to_owned(), |inner, depth| format!(r#"{{"{depth}": {{"share": "1 %", "buckets": {inner}}}}}"#));
    assert!(fault_of(Spec::parse(&deep), &deep).contains("deeper than 8 levels"));
    let many: Vec<_> = (0..61).map(|number| format!(r#""{number}": "1 %""#)).collect();
    let many = format!("{{{}}}", many.join(","));
    assert_eq!(fault_of(Spec::parse(&many), &many), "buckets: 61 buckets, at most 60 are possible");
}

#[test]
fn faults_of_rules_name_their_place() {
    let table = [
        ("{}", "classify: found an object, expected a list of rules"),
        ("[", "classify: no JSON: EOF"),
        ("[1]", "classify[0]: found 1, expected an object"),
        (
            r#"[{"bucket": "VIP"}, {"bucket": "vip"}]"#,
            "classify[1].bucket: found \"vip\", expected a bucket of the option buckets",
        ),
        (r#"[{"host": "a"}]"#, "classify[0]: has no \"bucket\""),
        (r#"[{"bucket": "VIP", "bucketFrom": "X-Class"}]"#, "classify[0].bucketFrom: a rule has one outcome"),
        (r#"[{"bucket": 1}]"#, "classify[0].bucket: found 1, expected a text"),
        (r#"[{"bucketFrom": "X Class"}]"#, "classify[0].bucketFrom: found \"X Class\", expected a name"),
        (r#"[{"path": "/", "bucket": "VIP"}]"#, "classify[0].path: is not known here: a rule has \"host\""),
        (r#"[{"host": "A.example", "bucket": "VIP"}]"#, "classify[0].host: found \"A.example\", expected a host name"),
        (r#"[{"host": "*example.com", "bucket": "VIP"}]"#, "classify[0].host: found \"*example.com\""),
        (r#"[{"host": [], "bucket": "VIP"}]"#, "classify[0].host: found a list"),
        (
            r#"[{"pathPrefix": "x", "bucket": "VIP"}]"#,
            "classify[0].pathPrefix: found \"x\", expected a path that starts",
        ),
        (
            r#"[{"pathRegex": "(", "bucket": "VIP"}]"#,
            "classify[0].pathRegex: found \"(\", no regular expression: unclosed group",
        ),
        (
            r#"[{"pathRegex": "(a{1000}){1000}", "bucket": "VIP"}]"#,
            "classify[0].pathRegex: found \"(a{1000}){1000}\", no regular",
        ),
        (r#"[{"method": "GE T", "bucket": "VIP"}]"#, "classify[0].method: found \"GE T\", expected a method"),
        (r#"[{"header": [], "bucket": "VIP"}]"#, "classify[0].header: found a list, expected a name"),
        (r#"[{"header": ["a", "b", "c"], "bucket": "VIP"}]"#, "classify[0].header: found a list, expected a name"),
        (r#"[{"header": "X:", "bucket": "VIP"}]"#, "classify[0].header: found \"X:\", expected a name of letters"),
        (
            r#"[{"network": ["10.0.0.0/8", "x"], "bucket": "VIP"}]"#,
            "classify[0].network: found \"x\", expected a network",
        ),
    ];
    let spec = spec(r#"{"VIP": "5..20 %"}"#);
    for (text, expected) in table {
        let found = fault_of(Rules::parse(text, &spec), text);
        assert!(found.starts_with(expected) && !found.contains('\n'), "{text}: expected {expected}, found {found}");
    }
}
