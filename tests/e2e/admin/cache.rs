//! The object cache in views, metrics and actions.

use super::*;

fn cached() -> (Admin, Backend) {
    let backend = Backend::serve(|request, conn| {
        let (target, cache) = (request.head.target(), "Cache-Control: max-age=600\r\nCache-Tag: red\r\n");
        conn.send(format!("HTTP/1.1 200 OK\r\n{cache}Content-Length: {}\r\n\r\n{target}", target.len()));
    });
    let setup = Setup::for_backends([backend.url()]).option(HOST, "cache", json!({"enabled": true}));
    (Admin::start(setup), backend)
}

impl Admin {
    fn lookup(&self, path: &str) -> String {
        self.proxy.client().get(HOST, path).head.get("X-Cache-Lookup").unwrap_or("none").to_owned()
    }

    fn purge(&self, query: &str) -> (u16, Value) {
        let response = self.client().exchange(canned::post(&self.host(), &format!("/v1/cache/purge?{query}"), ""));
        (response.status(), serde_json::from_str(&response.text()).unwrap_or_default())
    }
}

#[test]
fn the_cache_is_counted() {
    let (admin, _backend) = cached();
    for expected in ["miss", "hit", "hit"] {
        assert_eq!(admin.lookup("/a"), expected);
    }
    assert_eq!(admin.lookup("/b"), "miss");
    let counts = || {
        let totals = admin.json("/v1/status")["totals"].clone();
        ["cache_hits", "cache_misses", "cache_fills", "cache_stale"].map(|name| totals[name].as_u64())
    };
    until("the requests are counted", || counts() == [Some(2), Some(2), Some(2), Some(0)]);
    let cache = admin.json("/v1/status")["cache"].clone();
    assert_eq!((&cache["keys"], &cache["fills_in_flight"]), (&json!(2), &json!(0)), "{cache}");
    assert!(
        cache["stored_bytes"].as_u64() > Some(1000) && cache["capacity_bytes"].as_u64() >= Some(64 << 20),
        "{cache}"
    );
    let metrics = admin.get("/metrics").text();
    for line in ["sluice_cache_keys 2", "sluice_cache_hits_total 2", "sluice_cache_capacity_bytes 6"] {
        assert!(metrics.lines().any(|found| found.starts_with(line)), "{line} of {metrics}");
    }
}

#[test]
fn objects_are_purged_by_what_they_have_in_common() {
    let (admin, _backend) = cached();
    let fill = || ["/a/1", "/a/2", "/b"].map(|path| admin.lookup(path));
    fill();
    assert_eq!(fill(), ["hit"; 3]);
    let table = [
        (format!("host={HOST}&prefix=/a/"), 2, ["stale", "stale", "hit"]),
        (format!("host={HOST}&mode=hard"), 3, ["miss", "miss", "miss"]),
        ("host=other.test".to_owned(), 0, ["hit", "hit", "hit"]),
        ("tag=red&mode=soft".to_owned(), 3, ["stale", "stale", "stale"]),
        (format!("tag=red&frontend={HOST}"), 3, ["stale", "stale", "stale"]),
        (format!("frontend={HOST}"), 3, ["stale", "stale", "stale"]),
        ("all=1&mode=hard".to_owned(), 3, ["miss", "miss", "miss"]),
    ];
    for (query, count, lookups) in table {
        assert_eq!(admin.purge(&query), (200, json!({"purged": count})), "{query}");
        assert_eq!(fill(), lookups, "{query}");
        assert_eq!(fill(), ["hit"; 3], "{query}");
    }
    for query in ["", "all=2", "host=a&tag=b", "all=1&mode=loud"] {
        assert_eq!(admin.purge(query).0, 400, "{query}");
    }
}
