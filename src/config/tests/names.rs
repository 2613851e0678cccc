//! Tests of names: unknown, old, without effect, duplicate; and of the documented table of settings.

use super::*;

#[test]
fn unknown_settings_get_the_nearest_name() {
    let table = [
        (json!({"server": {"retryOnErorr": 1}}), "server.retryOnErorr", Some("server.retryOnError")),
        (json!({"server": {"timeout": 1}}), "server.timeout", Some("server.tcpTimeout")),
        (json!({"server": {"DeadBackendTtl": 1}}), "server.DeadBackendTtl", Some("server.deadBackendTTL")),
        (json!({"server": {"lruCache": {"sise": 1}}}), "server.lruCache.sise", Some("server.lruCache.size")),
        (json!({"tcpTimeout": 1}), "tcpTimeout", Some("server.tcpTimeout")),
        (json!({"servers": {"anything": 1}}), "servers", Some("server")),
        (json!({"colour": {"red": 1}}), "colour", None),
        (json!({"https": {"certs": "x"}}), "https.certs", Some("https.cert")),
        (json!({"http": {"bind": {"adress": "::1", "address": "::1"}}}), "http.bind.adress", Some("http.bind.address")),
        (
            json!({"http": {"bind": ["::", {"adress": "::1", "address": "::1"}]}}),
            "http.bind[1].adress",
            Some("http.bind[1].address"),
        ),
        // Old names are known and not recommended.
        (json!({"server": {"prot": 1}}), "server.prot", Some("http.port")),
    ];
    for (members, path, nearest) in table {
        let (_, warnings) = load_value(&with(&members)).expect("settings");
        let expected = Warning::UnknownKey { path: path.into(), nearest: nearest.map(Into::into) };
        assert!(warnings.contains(&expected), "{members}: {warnings:?}");
    }
    let lines = warnings_of(&with(&json!({"server": {"colour": 1, "retryOnErr": 1}})));
    let expected = [
        "server.colour: unknown setting, ignored",
        "server.retryOnErr: unknown setting, ignored; did you mean server.retryOnError?",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn old_names_mean_the_same() {
    let table = [
        (json!({"server": {"port": 8080}}), vec!["server.port"], "http.port", vec!["127.0.0.1:8080"]),
        (json!({"server": {"address": "10.0.0.1"}}), vec!["server.address"], "http.bind", vec!["10.0.0.1:80"]),
        (
            json!({"server": {"address": ["10.0.0.1", "10.0.0.2"], "address6": "::1"}, "http": {"port": 81}}),
            vec!["server.address", "server.address6"],
            "http.bind",
            vec!["10.0.0.1:81", "10.0.0.2:81", "[::1]:81"],
        ),
    ];
    for (members, old, new, listeners) in table {
        let (settings, warnings) = load_value(&with(&members)).expect("settings");
        let expected: Vec<_> = old.into_iter().map(|path| Warning::OldKey { path: path.into(), new }).collect();
        assert_eq!(warnings, expected, "{members}");
        let found: Vec<_> = settings.listeners.iter().map(ToString::to_string).collect();
        assert_eq!(found, listeners, "{members}");
    }
}

#[test]
fn new_names_win_over_old_ones() {
    let members = json!({
        "server": {"port": "any", "address": "nowhere", "address6": "nowhere", "https": {}},
        "http": {"port": 81, "bind": "::1"},
        "https": {"port": 443},
        "redisHost": "host", "redisPort": "any", "redisDatabase": 1, "redisPassword": "x",
        "redisMasterHost": "host", "redisMasterPort": 1, "redisMasterPassword": "x",
        "redis": {"host": "host", "port": 1}
    });
    let (settings, mut warnings) = load_value(&with(&members)).expect("settings");
    assert_eq!(settings.listeners, ["[::1]:81".parse().expect("an address")]);
    let ignored = |path: &str, new| Warning::OldKeyIgnored { path: path.into(), new };
    let mut expected = vec![
        ignored("server.port", "http.port"),
        ignored("server.address", "http.bind"),
        ignored("server.address6", "http.bind"),
        ignored("server.https", "https"),
        Warning::NoEffect { path: "https".into(), why: "https.bind names no address" },
    ];
    let driver = ["redisHost", "redisPort", "redisDatabase", "redisPassword", "redisMasterHost", "redisMasterPort"];
    let rest = ["redisMasterPassword", "redis.host", "redis.port"];
    expected.extend(driver.into_iter().chain(rest).map(|path| ignored(path, "driver")));
    let by_text = |warning: &Warning| warning.to_string();
    warnings.sort_by_key(by_text);
    expected.sort_by_key(by_text);
    assert_eq!(warnings, expected);
}

#[test]
fn old_names_are_reported_even_if_unusable() {
    let lines = warnings_of(&json!({"server": {"https": {"port": 443}}, "redisHost": "x", "redis": {"host": "y"}}));
    let expected = [
        "server.https: an old name, use https instead",
        "redisHost: an old name, use driver instead",
        "redis.host: an old name, use driver instead",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn settings_without_effect_are_reported() {
    let why = "has no effect: only a process that is started as root can become another user";
    let table = [
        (json!({"https": {"port": 443}}), "https: has no effect: https.bind names no address".to_owned()),
        (
            json!({"http": {"bind": {"address": "::1", "key": "a"}}}),
            "http.bind.key: has no effect: connections of http are not encrypted".into(),
        ),
        (json!({"user": "web"}), format!("user: {why}")),
        (json!({"group": "web"}), format!("group: {why}")),
    ];
    for (members, expected) in table {
        assert_eq!(warnings_of(&with(&members)), [expected], "{members}");
    }
    let tls = |key: &str, value: Value| with(&json!({"https": {"bind": "::", key: value}}));
    let table = [
        ("secureProtocol", json!("TLSv1_method"), "TLSv1_method is not supported; instead: TLS 1.2 and 1.3 are spoken"),
        (
            "ciphers",
            json!("HIGH:!aNULL"),
            "HIGH is not supported; instead: all suites of TLS 1.2 and 1.3 with forward secrecy and authenticated \
             encryption",
        ),
        (
            "ciphers",
            json!("AES128-SHA:ECDHE-RSA-AES128-GCM-SHA256"),
            "AES128-SHA is not supported; instead: the other suites of the list",
        ),
        (
            "secureOptions",
            json!(0x0300_0001),
            "0x1 is not supported; instead: these options mean nothing to rustls; its safe defaults hold",
        ),
    ];
    for (key, value, expected) in table {
        assert_eq!(warnings_of(&tls(key, value)), [format!("https.{key}: {expected}")]);
    }
    for (key, value) in [("secureProtocol", json!("TLSv1_2_method")), ("secureOptions", json!("SSL_OP_NO_TLSv1"))] {
        assert!(warnings_of(&tls(key, value)).is_empty(), "{key}");
    }
    assert_eq!(warnings_of(&with(&json!({"https": {"bind": []}}))).len(), 1, "bound nowhere");
}

#[test]
fn duplicate_keys_are_reported() {
    let text = r#"{
        "driver": "file:a.json",
        "server": {"tcpTimeout": 1, "debug": null, "tcpTimeout": 2.5, "cpus": [0, 1]},
        "http": {"bind": [{"address": "::1", "port": 1, "port": 81}, "::2"]}
    }"#;
    let (settings, warnings) = from_text(text, Path::new("a.json"), &Overrides::default()).expect("settings");
    let lines: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    let rest = "occurs more than once; the last one counts";
    assert_eq!(lines, [format!("server.tcpTimeout: {rest}"), format!("http.bind[0].port: {rest}")]);
    assert_eq!(settings.worker.idle_timeout.as_millis(), 2500);
    assert_eq!(settings.listeners[0].port(), 81);
}

#[test]
fn comments_are_no_settings() {
    let text = r#"{"// a": "x", "//": 1, "//": 2, "driver": "file:a", "server": {"// debug": "off", "debug": false}}"#;
    let (_, warnings) = from_text(text, Path::new("a.json"), &Overrides::default()).expect("settings");
    assert_eq!(warnings, []);
}

#[test]
fn x_debug_for_all_clients_is_reported() {
    let open = "server.debugNetworks: is open to everyone: X-Debug tells any client the addresses of backends; name the \
                networks of operators alone";
    for (networks, expected) in [
        (json!(null), &[][..]),
        (json!(["10.0.0.0/8", "fd00::/8"]), &[]),
        (json!("0.0.0.0/0"), &[open]),
        (json!(["127.0.0.1", "::/0"]), &[open]),
        (json!("128.0.0.0/1"), &[open]),
    ] {
        assert_eq!(warnings_of(&with(&json!({"server": {"debugNetworks": networks}}))), expected, "{networks}");
    }
}

/// The document with the table of settings, and the first line of the table.
const DOCUMENT: &str = "docs/configuration.md";
const TABLE: &str = "| setting | default | meaning |";

#[test]
fn the_table_of_settings_has_every_setting_and_no_other() {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT)).expect("the document");
    let rows = document.lines().skip_while(|line| *line != TABLE).skip(2);
    let rows = rows.map_while(|line| line.strip_prefix("| `")?.split('`').next());
    let mut in_table: Vec<_> = rows.map(str::to_owned).collect();
    in_table.sort_unstable();
    let value = with(&json!({}));
    let report = Report::default();
    assert!(read(&Section::root(&value, &report), Path::new(""), &Overrides::default()).is_some());
    let is_section = |path: &String| {
        [
            "server",
            "server.cacheDisk",
            "server.lruCache",
            "server.tenants",
            "server.backendTls",
            "http",
            "https",
            "admin",
        ]
        .contains(&path.as_str())
    };
    let mut known = report.current_settings();
    known.retain(|path| !is_section(path));
    known.sort_unstable();
    assert_eq!(in_table, known);
}

#[test]
fn https_under_its_old_name_listens_where_the_old_addresses_say() {
    let of = |server: Value| {
        let text = json!({"driver": "file:a", "server": server}).to_string();
        let (settings, _) = from_text(&text, Path::new("a.json"), &Overrides::default()).expect("a good text");
        let addresses: Vec<_> = settings.tls.iter().flat_map(|tls| &tls.listeners).map(|one| one.address).collect();
        (settings.listeners, addresses)
    };
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    for (server, plain, encrypted) in [
        (json!({"https": {}}), vec!["127.0.0.1:80"], vec!["127.0.0.1:443"]),
        (json!({"https": {}, "address": "0.0.0.0"}), vec!["0.0.0.0:80"], vec!["0.0.0.0:443"]),
        (
            json!({"https": {"port": 8443}, "port": 8080, "address": ["10.0.0.1"], "address6": ["::1"]}),
            vec!["10.0.0.1:8080", "[::1]:8080"],
            vec!["10.0.0.1:8443", "[::1]:8443"],
        ),
        (json!({"https": {"bind": "10.0.0.2"}, "address": "10.0.0.1"}), vec!["10.0.0.1:80"], vec!["10.0.0.2:443"]),
    ] {
        let expected = [plain, encrypted].map(|list| list.into_iter().map(address).collect::<Vec<_>>());
        assert_eq!(of(server.clone()), expected.into(), "{server}");
    }
}

#[test]
fn the_table_of_earlier_names_has_every_renamed_setting() {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT)).expect("the document");
    let rows = document.lines().skip_while(|line| *line != "| earlier name | setting |").skip(2);
    let mut in_table: Vec<_> = rows.map_while(|line| line.strip_prefix("| ")).collect();
    in_table.sort_unstable();
    let mut known: Vec<_> = crate::config::renamed::ALL
        .iter()
        .map(|(new, earlier)| {
            let section = new.rsplit_once('.').map_or(String::new(), |(section, _)| format!("{section}."));
            format!("`{section}{earlier}` | `{new}` |")
        })
        .collect();
    known.sort_unstable();
    assert_eq!(in_table, known);
}

#[test]
fn redis_is_where_the_old_names_say() {
    let of = |value: Value| match from_text(&value.to_string(), Path::new("a.json"), &Overrides::default()) {
        Ok((settings, _)) => match settings.directory.source {
            crate::directory::Source::Redis(redis) => (redis.read.to_string(), redis.write.to_string()),
            other => panic!("{value}: {other:?}"),
        },
        Err(failure) => panic!("{value}: {failure}"),
    };
    let here = "redis://127.0.0.1:6379/0";
    let master =
        json!({"redisHost": "10.0.0.1", "redisPassword": "se/c", "redisMasterHost": "::1", "redisDatabase": 2});
    let table = [
        (json!({}), here, here),
        (
            json!({"driver": "redis:#staging:"}),
            "redis://127.0.0.1:6379/0#staging:",
            "redis://127.0.0.1:6379/0#staging:",
        ),
        (json!({"driver": ["unix:/run/r", "redis://b"]}), "unix:/run/r?db=0", "redis://b:6379/0"),
        (master, "redis://10.0.0.1:6379/2", "redis://[::1]:6379/2"),
        (json!({"redis": {"port": 1234}}), "redis://127.0.0.1:1234/0", "redis://127.0.0.1:1234/0"),
    ];
    for (value, read, write) in table {
        assert_eq!(of(value.clone()), (read.to_owned(), write.to_owned()), "{value}");
    }
}

#[test]
fn redis_has_its_limits_from_the_server() {
    let of = |server: Value| {
        let text = json!({"driver": "redis:", "server": server}).to_string();
        let (settings, _) = from_text(&text, Path::new("a.json"), &Overrides::default()).expect("a good one");
        match settings.directory.source {
            crate::directory::Source::Redis(redis) => (redis.resync_hold.as_millis(), redis.dead_ttl.as_millis()),
            other => panic!("{server}: {other:?}"),
        }
    };
    for (server, expected) in [
        (json!({}), (300_000, 30_000)),
        (json!({"resyncHold": 0, "deadBackendTTL": 1}), (0, 1_000)),
        (json!({"resyncHold": 1.5}), (1_500, 30_000)),
    ] {
        assert_eq!(of(server.clone()), expected, "{server}");
    }
}
