//! Classification of requests by rules.

use super::{QUEUE, spec};
use crate::shaper::{BucketId, Classifier, RequestView, Rules, Shaper};

const BUCKETS: &str = r#"{"VIP": "5..20 %", "Upload": "5..10 %", "Backend": "1..10 t", "Jail": "1..5 t"}"#;

const FIELDS: &[u8] = b"Host: www.example.com\r\nX-Class:  vip \r\nX-CLASS: second\r\nCookie: a=1; session=x=y;b\r\n\
    X-Empty:\r\nX-Director-Bucket: Backend\r\n\r\nX-Body: 1\r\n";

fn request() -> RequestView<'static> {
    RequestView {
        host: "www.example.com",
        method: b"POST",
        target: b"/upload/x.bin?page=/jail",
        fields: FIELDS,
        client: [192, 0, 2, 1].into(),
        tls_name: Some("tls.example.com"),
        is_trusted: false,
    }
}

fn classify(rules: &str, request: &RequestView<'_>) -> String {
    let spec = spec(BUCKETS);
    let rules = Rules::parse(rules, &spec).unwrap_or_else(|faults| panic!("{rules}: {faults:?}"));
    let shaper = Shaper::<()>::new(10, &spec, QUEUE);
    let classifier = Classifier::bind(&rules, &spec, &shaper);
    let class = classifier.classify(request);
    assert_eq!(shaper.bucket(class.name), Some(class.bucket));
    class.name.to_owned()
}

#[test]
fn each_condition_matches_what_it_says() {
    let table = [
        (r#""host": "www.example.com""#, true),
        (r#""host": "example.com""#, false),
        (r#""host": "*.example.com""#, true),
        (r#""host": ["a.example", "*.com"]"#, true),
        (r#""host": "*.www.example.com""#, false),
        (r#""pathPrefix": "/upload/""#, true),
        (r#""pathPrefix": "/upload/x.bin?""#, false),
        (r#""pathPrefix": ["/a", "/u"]"#, true),
        (r#""pathRegex": "^/[a-z]+/.*\\.bin$""#, true),
        (r#""pathRegex": "jail""#, false),
        (r#""pathRegex": "\\d""#, false),
        (r#""method": "POST""#, true),
        (r#""method": ["GET", "HEAD"]"#, false),
        (r#""method": "post""#, false),
        (r#""header": ["x-class", "vip"]"#, true),
        (r#""header": ["X-Class", "second"]"#, true),
        (r#""header": ["X-Class", "VIP"]"#, false),
        (r#""header": ["X-Class"]"#, true),
        (r#""header": "X-Class""#, true),
        (r#""header": "X-Clas""#, false),
        (r#""header": "X-Empty""#, true),
        (r#""header": ["X-Empty", ""]"#, true),
        (r#""header": "X-Body""#, false),
        (r#""cookie": ["session", "x=y"]"#, true),
        (r#""cookie": ["session", "x"]"#, false),
        (r#""cookie": "a""#, true),
        (r#""cookie": "b""#, false),
        (r#""cookie": "sess""#, false),
        (r#""network": "192.0.2.0/24""#, true),
        (r#""network": ["10.0.0.0/8", "192.0.2.1"]"#, true),
        (r#""network": "2001:db8::/32""#, false),
        (r#""tlsName": "tls.example.com""#, true),
        (r#""tlsName": "www.example.com""#, false),
        (r#""method": "POST", "host": "www.example.com""#, true),
        (r#""method": "POST", "host": "other.example""#, false),
    ];
    for (condition, expected) in table {
        let found = classify(&format!(r#"[{{{condition}, "bucket": "VIP"}}]"#), &request());
        assert_eq!(found, if expected { "VIP" } else { "root" }, "{condition}");
    }
    let plain = RequestView { tls_name: None, ..request() };
    assert_eq!(classify(r#"[{"tlsName": "*.com", "bucket": "VIP"}]"#, &plain), "root");
}

#[test]
fn the_first_match_wins() {
    let rules = r#"[{"method": "GET", "bucket": "Jail"}, {"header": ["X-Class", "vip"], "bucket": "root"},
        {"pathPrefix": "/upload", "bucket": "Upload"}, {"bucket": "Jail"}]"#;
    assert_eq!(classify(rules, &request()), "root");
    let other = RequestView { fields: b"", ..request() };
    assert_eq!(classify(rules, &other), "Upload");
    assert_eq!(classify(rules, &RequestView { target: b"/", ..other }), "Jail");
    assert_eq!(Classifier::default().classify(&request()).bucket, BucketId::UNCLASSIFIED);
}

#[test]
fn a_field_names_the_bucket_where_the_network_is_trusted() {
    let rules = r#"[{"bucketFrom": "X-Director-Bucket"}, {"bucket": "Jail"}]"#;
    assert_eq!(classify(rules, &request()), "Jail");
    let trusted = RequestView { is_trusted: true, ..request() };
    assert_eq!(classify(rules, &trusted), "Backend");
    for fields in [&b"X-Director-Bucket: nothing\r\n"[..], b"", b"X-Director-Bucket:\n"] {
        assert_eq!(classify(rules, &RequestView { fields, ..trusted }), "Jail");
    }
    assert_eq!(classify(rules, &RequestView { fields: b"X-Director-Bucket: root\r\n\r\n", ..trusted }), "root");
}

#[test]
fn a_hostile_path_costs_linear_time() {
    // A backtracking engine would need 2^64 steps.
    let target = [b"/".as_slice(), &[b'a'; 64]].concat();
    let rules = r#"[{"pathRegex": "^/(a|a)*(a|aa)+$b", "bucket": "VIP"}]"#;
    assert_eq!(classify(rules, &RequestView { target: &target, ..request() }), "root");
}

#[test]
fn rules_follow_the_tree() {
    let (old, new) = (spec(BUCKETS), spec(r#"{"Jail": "1..5 t"}"#));
    let rules = Rules::parse(r#"[{"method": "POST", "bucket": "VIP"}, {"bucket": "Jail"}]"#, &old).expect("good rules");
    let shaper = Shaper::<()>::new(10, &old, QUEUE);
    let before = Classifier::bind(&rules, &old, &shaper);
    assert_eq!(before.classify(&request()).name, "VIP");
    shaper.apply(10, &new, QUEUE, crate::base::clock::Moment::ZERO, |(), _| {}).expect("room for it");
    let after = Classifier::bind(&rules, &new, &shaper);
    assert_eq!(after.classify(&request()).name, "Jail", "a rule without its bucket is left out");
}
