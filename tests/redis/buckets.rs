//! Buckets of a frontend in Redis: texts of JSON in the hash of its options, edited live.

use crate::server::Server;
use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, until};

/// Sets options, with texts that may have blanks.
fn set(redis: &Server, pairs: &[(&str, &str)]) {
    let mut command = redis::cmd("HSET");
    command.arg(format!("options:{HOST}"));
    pairs.iter().for_each(|(name, value)| _ = command.arg(name).arg(value));
    command.query::<()>(&mut redis.connect()).expect("writing options");
}

#[test]
fn buckets_are_made_changed_and_taken_away_by_writes_to_redis() {
    let redis = Server::start();
    let backend = Backend::always(canned::ok("ok"));
    redis.set(HOST, &[format!("{}#capacity=10", backend.url())]);
    let proxy = Setup::new().driver(redis.url()).workers(2).start();
    let mut clients = [proxy.client(), proxy.client(), proxy.client(), proxy.client()];
    let mut until_bucket = |expected: Option<&str>| {
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Class: vip\r\n\r\n");
        until(&format!("the bucket is {expected:?}"), || {
            clients.iter_mut().all(|client| {
                let response = client.exchange(&request);
                response.expect_ok("ok");
                response.head.get("X-Director-Bucket") == expected
            })
        });
    };
    until_bucket(None);
    let rules = r#"[{"header": ["X-Class", "vip"], "bucket": "VIP"}]"#;
    // The rules stand before the buckets that they name.
    set(
        &redis,
        &[("classify", rules), ("buckets", r#"{"VIP": "5..20 %", "Jail": "1..2 t"}"#), ("bucketHeader", "true")],
    );
    until_bucket(Some("VIP"));
    set(&redis, &[("classify", r#"[{"header": "X-Class", "bucket": "Jail"}]"#)]);
    until_bucket(Some("Jail"));
    set(&redis, &[("buckets", r#"{"VIP": "5..20", "Jail": "1..2 t"}"#)]);
    let fault =
        format!("options:{HOST}: buckets[\"VIP\"]: found \"5..20\", expected the assured and the greatest share");
    until("the wrong share is named", || proxy.stderr().contains(&fault));
    assert!(proxy.stderr().contains("the earlier values stay"), "{}", proxy.stderr());
    until_bucket(Some("Jail"));
    // Without the bucket that it names, a rule is wrong, and the one before stays; it leads nowhere then.
    set(&redis, &[("buckets", r#"{"VIP": "5..20 %"}"#)]);
    until_bucket(Some("root"));
    set(&redis, &[("classify", rules)]);
    until_bucket(Some("VIP"));
    redis.run::<()>(&format!("DEL options:{HOST}"));
    until_bucket(None);
}
