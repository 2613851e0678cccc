//! Every kind of wrong value, with the message that names it.

use super::*;

/// Each row is a configuration with exactly one fault.
fn check(table: Vec<(Value, &str)>) {
    for (members, expected) in table {
        assert_eq!(faults_of(&with(&members)), [expected], "{members}");
    }
}

/// The same for members of `server`.
fn check_server(table: Vec<(Value, &str)>) {
    check(table.into_iter().map(|(members, expected)| (json!({"server": members}), expected)).collect());
}

#[test]
fn wrong_times() {
    let not_zero = ["tcpTimeout", "connectTimeout", "headTimeout", "idleTimeout", "responseTimeout", "bodyTimeout"];
    for key in not_zero.into_iter().chain(["upstreamIdleTimeout", "deadBackendTTL", "dnsRefresh"]) {
        let expected = format!("server.{key}: found 0, expected a number of seconds from 0.001 to 31536000");
        assert_eq!(faults_of(&with(&json!({"server": {key: 0}}))), [expected]);
    }
    check_server(vec![
        (
            json!({"tcpTimeout": "30"}),
            "server.tcpTimeout: found \"30\", expected a number of seconds from 0.001 to 31536000",
        ),
        (
            json!({"tcpTimeout": 1e9}),
            "server.tcpTimeout: found 1000000000.0, expected a number of seconds from 0.001 to 31536000",
        ),
        (
            json!({"lruCache": {"ttl": 0}}),
            "server.lruCache.ttl: found 0, expected a number of seconds from 0.001 to 31536000",
        ),
        (
            json!({"tunnelTimeout": -1}),
            "server.tunnelTimeout: found -1, expected 0, or a number of seconds from 0.001 to 31536000",
        ),
        (
            json!({"memoryLimit": "a lot"}),
            "server.memoryLimit: found \"a lot\", expected 0 for no limit, a number of bytes from 1048576, or a text such \
             as \"300MB\" or \"2GB\"",
        ),
        (
            json!({"drainTimeout": true}),
            "server.drainTimeout: found true, expected 0, or a number of seconds from 0.001 to 31536000",
        ),
    ]);
}

#[test]
fn wrong_limits() {
    check_server(vec![
        (
            json!({"tenants": {"buckets": {"gold": "20..5 %"}}}),
            "server.tenants.buckets[\"gold\"]: found \"20..5 %\", the ceil is over 100 %, below the rate, or nothing: write \
             the smaller number first, expected a tree of shares, as in {\"gold\": \"20..80 %\"}",
        ),
        (json!({"maxSockets": 0}), "server.maxSockets: found 0, expected a whole number from 1 to 65535"),
        (json!({"maxQueue": -1}), "server.maxQueue: found -1, expected a whole number from 0 to 1000000"),
        (
            json!({"retryOnError": "three"}),
            "server.retryOnError: found \"three\", expected a whole number from 0 to 100",
        ),
        (json!({"retryOnError": 1.5}), "server.retryOnError: found 1.5, expected a whole number from 0 to 100"),
        (json!({"lruCache": {"size": 0}}), "server.lruCache.size: found 0, expected a whole number from 1 to 10000000"),
        (
            json!({"lruCache": {"unknownSize": []}}),
            "server.lruCache.unknownSize: found an empty list, expected a whole number from 1 to 10000000",
        ),
        (json!({"maxHeadBytes": 1023}), "server.maxHeadBytes: found 1023, expected a whole number from 1024 to 65536"),
        (
            json!({"maxBodyBytes": {}}),
            "server.maxBodyBytes: found an object, expected a whole number from 0 to 9007199254740992",
        ),
        (
            json!({"maxConnections": [1]}),
            "server.maxConnections: found a list, expected a whole number from 1 to 10000000",
        ),
        (
            json!({"maxBufferBytes": 1000}),
            "server.maxBufferBytes: found 1000, expected a whole number from 1048576 to 1099511627776",
        ),
        (
            json!({"maxRequestsPerConnection": -1}),
            "server.maxRequestsPerConnection: found -1, expected a whole number from 0 to 10000000",
        ),
        (
            json!({"maxConnectionsPerAddress": true}),
            "server.maxConnectionsPerAddress: found true, expected a whole number from 0 to 10000000",
        ),
        (json!({"workers": 0}), "server.workers: found 0, expected a whole number from 1 to 1024"),
    ]);
}

#[test]
fn wrong_habits() {
    check_server(vec![
        (json!({"debug": 1}), "server.debug: found 1, expected true or false"),
        (json!({"logFormat": "xml"}), "server.logFormat: found \"xml\", expected \"text\" or \"json\""),
        (json!({"pin": "no"}), "server.pin: found \"no\", expected true or false"),
        (json!({"httpKeepAlive": "true"}), "server.httpKeepAlive: found \"true\", expected true or false"),
        (json!({"deadBackendOn500": 0}), "server.deadBackendOn500: found 0, expected true or false"),
        (
            json!({"accessLog": true}),
            "server.accessLog: found true, expected a path, \"-\" for standard output, \"syslog:\", \"journald:\", or false",
        ),
        (json!({"staticDir": ""}), "server.staticDir: found \"\", expected a text"),
        (
            json!({"via": "a b"}),
            "server.via: found \"a b\", expected a name of letters, digits and !#$%&'*+-.^_`|~, or false to add no Via",
        ),
        (json!({"unknownHostStatus": 410}), "server.unknownHostStatus: found 410, expected 400, 404, 421 or 503"),
        (json!({"onClientAbort": true}), "server.onClientAbort: found true, expected \"close\" or \"ignore\""),
        (json!({"forwardedMode": "keep"}), "server.forwardedMode: found \"keep\", expected \"append\" or \"replace\""),
        (
            json!({"trustedNetworks": ["10.0.0.0/8", "10.0.0.0/33"]}),
            "server.trustedNetworks[1]: found \"10.0.0.0/33\", \
             expected an IP address, or a network such as \"10.0.0.0/8\"",
        ),
        (
            json!({"debugNetworks": true}),
            "server.debugNetworks: found true, expected an IP address, or a network such as \"10.0.0.0/8\"",
        ),
        (json!({"cpus": 3}), "server.cpus: found 3, expected a list of processors such as \"0-3,8\""),
        (json!({"cpus": [1, "x"]}), "server.cpus[1]: found \"x\", expected a whole number from 0 to 1023"),
        (
            json!({"cpus": "2-0"}),
            "server.cpus: found \"2-0\" (the range 2-0 ends before it begins), \
             expected a list of processors such as \"0-3,8\"",
        ),
        (
            json!({"cpus": []}),
            "server.cpus: found an empty list (the list is empty), \
             expected a list of processors such as \"0-3,8\"",
        ),
        (json!({"lruCache": true}), "server.lruCache: found true, expected an object"),
    ]);
}

#[test]
fn wrong_listeners() {
    check(vec![
        (json!({"http": []}), "http: found an empty list, expected an object"),
        (
            json!({"http": {"proxyProtocol": true}}),
            "http.proxyProtocol: found true, expected the networks of the proxies, here or in server.trustedNetworks",
        ),
        (
            json!({"http": {"bind": {"address": "::1", "proxyProtocol": []}}}),
            "http.bind.proxyProtocol: found an empty list, expected the networks of the proxies, here or in \
             server.trustedNetworks",
        ),
        (
            json!({"https": {"proxyProtocol": 2}}),
            "https.proxyProtocol: found 2, expected true, false, the networks of the proxies such as \"10.0.0.0/8\", or an object \
             of required, allowed and ignored ones",
        ),
        (
            json!({"http": {"proxyProtocol": "nowhere"}}),
            "http.proxyProtocol: found \"nowhere\", expected an IP address, or a network such as \"10.0.0.0/8\"",
        ),
        (json!({"http": {"port": 0}}), "http.port: found 0, expected a whole number from 1 to 65535"),
        (json!({"http": {"bind": []}}), "http.bind: found an empty list, expected at least one address"),
        (
            json!({"http": {"bind": ["::1", "localhost"]}}),
            "http.bind[1]: found \"localhost\", expected an IP address, or an object of address and port",
        ),
        (json!({"http": {"bind": [{"port": 81}]}}), "http.bind[0].address: found nothing, expected an IP address"),
        (
            json!({"http": {"bind": [{"address": "::1", "port": "81"}]}}),
            "http.bind[0].port: found \"81\", expected a whole number from 1 to 65535",
        ),
        (
            json!({"http": {"bind": ["::1", {"address": "::1", "port": 80}]}}),
            "http.bind[1]: found an object ([::1]:80 once more), expected every address and port only once",
        ),
        (
            json!({"http": {"bind": "::1", "port": 443}, "https": {"bind": ["::", "::1"]}}),
            "https.bind[1]: found \"::1\" ([::1]:443, which http has too), expected an address and port that http does not \
             have",
        ),
        (
            json!({"https": {"bind": "::", "cert": "/nowhere/a.crt"}}),
            "https.bind: found no key, expected a key to the certificate",
        ),
        (
            json!({"https": {"bind": ["::", {"address": "::1", "key": "/nowhere/a.key"}]}}),
            "https.bind[1]: found no cert, expected a certificate to the key",
        ),
        (
            json!({"server": {"https": {"cert": "/nowhere/a.crt", "key": "/nowhere/a.key"}}}),
            "server.https.bind: found /nowhere/a.crt: No such file or directory (os error 2), expected a certificate and \
             its key",
        ),
        (
            json!({"https": {"bind": "::", "clientAuth": "required"}}),
            "https.clientCa: found nothing, expected the file of the authorities that sign clients' certificates",
        ),
        (
            json!({"https": {"bind": "::", "secureOptions": ["SSL_OP_NO_TLSv1_2", "SSL_OP_NO_TLSv1_3"]}}),
            "https.secureOptions: found a list, expected options that leave one version of TLS",
        ),
        (json!({"https": {"bind": "::", "passphrase": 7}}), "https.passphrase: found something else, expected a text"),
    ]);
}

#[test]
fn wrong_drivers() {
    let expected = format!("\"file:PATH\", \"haproxy:PATH\", {}", crate::directory::redis::EXPECTED);
    let table = [
        (
            json!({"driver": "redis://:secret@host:port/2#prefix"}),
            "driver: found a URL of Redis whose host or port is no good",
        ),
        (json!({"driver": ["memcached:"]}), "driver[0]: found a text without a scheme of Redis"),
        (json!({"driver": 6379}), "driver: found 6379"),
        (json!({"driver": {}}), "driver.url: found nothing"),
        (json!({"driver": []}), "driver: found an empty list"),
        (
            json!({"redisHost": "no host"}),
            "driver: found a URL of Redis whose host or port is no good (by the old names)",
        ),
    ];
    for (value, found) in table {
        assert_eq!(faults_of(&value), [format!("{found}, expected {expected}")], "{value}");
    }
    for drivers in [json!(["file:a", "file:b"]), json!(["redis:", "file:a"])] {
        let faults = faults_of(&json!({ "driver": drivers }));
        assert_eq!(
            faults,
            [
                "driver: found a list, expected one file, or a list of Redis alone, and beside them any files of HAProxy's"
            ]
        );
    }
    let beside = faults_of(&json!({"driver": ["redis+cluster://a,b", "redis:"]}));
    assert_eq!(
        beside,
        ["driver: found a list, expected a Redis Cluster alone: it is read from and written to at its masters"]
    );
    let no_text = faults_of(&json!({"redisHost": "a", "redisPassword": 12345}));
    assert_eq!(no_text[0], "redisPassword: found no text, expected a text");
}

#[test]
fn wrong_accounts_and_sections() {
    check(vec![
        (json!({"user": ""}), "user: found \"\", expected a name, or the number of an account"),
        (json!({"group": -1}), "group: found -1, expected a name, or the number of an account"),
        (json!({"server": 3}), "server: found 3, expected an object"),
        (json!({"server": {"staticDir": ["x".repeat(100)]}}), "server.staticDir: found a list, expected a text"),
    ]);
    assert_eq!(faults_of(&json!([1]))[0], "the configuration: found a list, expected an object");
    let long = faults_of(&with(&json!({"user": "x", "http": {"bind": "é".repeat(100)}})));
    let shown = "é".repeat(60);
    let expected = format!("http.bind: found \"{shown}\"…, expected an IP address, or an object of address and port");
    assert_eq!(long, [expected]);
}

#[test]
fn one_run_names_all_faults_and_all_oddities() {
    let text = r#"{
        "server": {"tcpTimeout": 0, "retryOnError": "three", "accessLog": true, "colour": "red"},
        "http": {"port": 70000, "bind": ["nowhere", "::1"]},
        "driver": "nowhere:"
    }"#;
    let failure = from_text(text, Path::new("a.json"), &Overrides::default()).expect_err("faults");
    let message = failure.to_string();
    let places: Vec<_> = message.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    let expected = ["server.tcpTimeout:", "server.accessLog:", "server.retryOnError:", "http.port:", "http.bind[0]:"];
    let expected: Vec<_> = expected.into_iter().chain(["driver:"]).map(|path| format!("a.json: {path}")).collect();
    assert_eq!(places, expected);
    assert_eq!(failure.warnings, [Warning::UnknownKey { path: "server.colour".into(), nearest: None }]);
}

#[test]
fn broken_texts_are_named_by_line_and_column() {
    let table = [
        ("{\n  \"server\": {\n    \"debug\": yes\n  }\n}", "a.json:3:14: expected value"),
        ("{\"a\": 1,}", "a.json:1:9: trailing comma"),
        ("{} {}", "a.json:1:4: trailing characters"),
        ("", "a.json:1:0: EOF while parsing a value"),
    ];
    for (text, expected) in table {
        let failure = from_text(text, Path::new("a.json"), &Overrides::default()).expect_err("a fault");
        assert_eq!(failure.to_string(), expected, "{text:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault() {
    let failure = load(Path::new("no/such/file.json"), &Overrides::default()).expect_err("a fault");
    assert_eq!(
        failure.to_string(),
        "no/such/file.json: reading the configuration: No such file or directory (os error 2)"
    );
}
