//! `sluice provision` and `sluice routes`.

use crate::changes::{clients, until_all_say};
use crate::server::Server;
use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, until};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

fn sluice(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_sluice")).args(arguments).stdin(Stdio::null()).output();
    output.expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file of routes, removed at the end.
struct Routes(PathBuf);

impl Routes {
    fn new(name: &str, text: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("sluice-tools-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder");
        let routes = Self(dir.join("routes.json"));
        routes.write(text);
        routes
    }

    fn write(&self, text: &str) {
        let draft = self.0.with_extension("draft");
        fs::write(&draft, text).expect("writing");
        fs::rename(&draft, &self.0).expect("renaming");
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a plain path")
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().expect("a folder"));
    }
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_file_is_carried_by_difference_and_a_host_is_explained() {
    let redis = Server::start();
    let driver = format!("{}#edge:", redis.url());
    let routes = Routes::new(
        "carry",
        r#"{"frontends": {"a.test": ["x", "http://10.0.0.1"], "*.test": ["y", "http://10.0.0.2", "http://10.0.0.3"]},
            "options": {"*.test": {"httpsRedirect": false}}}"#,
    );
    let carry = |more: &[&str]| {
        let output = sluice(&[&["provision", routes.path(), "--driver", &driver], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).split_once("#edge:: ").expect("the target first").1.trim_end().to_owned()
    };
    assert_eq!(carry(&[]), "2 lists written, 0 removed, 0 as they were");
    assert_eq!(carry(&[]), "0 lists written, 0 removed, 2 as they were");
    redis.run::<()>("RPUSH edge:frontend:old z http://10.0.0.9");
    redis.run::<()>("RPUSH edge:frontend:a.test http://10.0.0.4");
    redis.run::<()>("RPUSH frontend:other z http://10.0.0.9");
    let left =
        "1 lists written, 0 removed, 1 as they were; 1 that the file does not have were left (--prune removes them)";
    assert_eq!(carry(&[]), left);
    assert_eq!(carry(&["--prune"]), "0 lists written, 1 removed, 2 as they were");
    assert_eq!(redis.run::<Vec<String>>("LRANGE edge:frontend:a.test 0 -1"), ["x", "http://10.0.0.1"]);
    assert_eq!(redis.run::<i64>("EXISTS frontend:other"), 1, "another prefix is none of ours");

    // Options belong to their list: missing, others or more of them are a difference, and they go with it.
    let option = || redis.run::<Vec<String>>("HGETALL edge:options:*.test");
    assert_eq!(option(), ["httpsRedirect", "false"]);
    for (line, expected) in [
        ("HSET edge:options:*.test httpsRedirect true", "1 lists written, 0 removed, 1 as they were"),
        ("HSET edge:options:*.test more x", "1 lists written, 0 removed, 1 as they were"),
        ("DEL edge:options:*.test", "1 lists written, 0 removed, 1 as they were"),
        ("HSET edge:options:a.test httpsRedirect true", "1 lists written, 0 removed, 1 as they were"),
        ("HSET edge:options:old httpsRedirect true", "0 lists written, 1 removed, 2 as they were"),
    ] {
        redis.run::<()>(line);
        assert_eq!(carry(&["--prune"]), expected, "{line}");
        assert_eq!(option(), ["httpsRedirect", "false"], "{line}");
        assert_eq!(redis.run::<i64>("EXISTS edge:options:a.test edge:options:old"), 0, "{line}");
    }

    redis.run::<()>("SADD edge:dead:b.test 1");
    redis.run::<()>("EXPIRE edge:dead:b.test 99");
    let explained = sluice(&["routes", "B.test.", "--driver", &driver]);
    let lines = text(&explained.stdout);
    for line in [
        "  edge:frontend:b.test  nothing",
        "  edge:frontend:*.test  serves: \"y\", 2 backends",
        "    0  http://10.0.0.2\n    1  http://10.0.0.3  dead for 9",
        "\n    httpsRedirect: false\n",
        "  edge:frontend:*  not asked for",
    ] {
        assert!(lines.contains(line), "{line:?} in {lines}");
    }
    let all = sluice(&["routes", "--driver", &driver]);
    assert_eq!(text(&all.stdout), "*.test  \"y\"  2 backends\na.test  \"x\"  1 backends\n");

    // What requests would meet, the status says too.
    redis.run::<()>("RPUSH edge:frontend:bad.test x nonsense");
    redis.run::<()>("SET edge:frontend:string.test x");
    redis.run::<()>("RPUSH edge:frontend:half.test http://10.0.0.1 nonsense http://10.0.0.2");
    redis.run::<()>("RPUSH edge:frontend:Shop.Test:80 x http://10.0.0.1");
    for (host, is_served, line) in [
        ("b.test:8080", true, "edge:frontend:*.test  serves"),
        ("bad.test", false, "edge:frontend:bad.test  cannot be used, requests get a 502"),
        ("string.test", false, "edge:frontend:string.test  cannot be used: "),
        ("half.test", true, "    0  nonsense  is left out: expected http://host:port"),
        ("half.test", true, "item 0 is a URL"),
        ("nowhere", false, "no route: requests get a 400"),
    ] {
        let output = sluice(&["routes", host, "--driver", &driver]);
        assert_eq!(output.status.success(), is_served, "{host}: {}", text(&output.stdout));
        assert!(text(&output.stdout).contains(line), "{host}: {}", text(&output.stdout));
    }
    let all = text(&sluice(&["routes", "--driver", &driver]).stdout);
    assert!(all.contains("Shop.Test:80  \"x\"  1 backends  never matches: a host has no scheme and no port"), "{all}");
}

#[test]
fn faults_are_named() {
    let routes = Routes::new("faults", r#"{"frontends": {"a": ["x", "nonsense"]}}"#);
    let redis = Server::start();
    let table = [
        (vec!["provision", routes.path(), "--driver", "nowhere:"], "expected \"redis:\""),
        (vec!["provision", "/no/such/file", "--driver", "redis:"], "/no/such/file: No such file"),
        (vec!["routes", "x", "--driver", "redis://127.0.0.1:1"], "connecting to redis://127.0.0.1:1/0: "),
    ];
    for (arguments, expected) in table {
        let output = sluice(&arguments);
        assert!(!output.status.success());
        assert!(text(&output.stderr).contains(expected), "{expected} in {}", text(&output.stderr));
    }
    let url = redis.url();
    let output = sluice(&["provision", routes.path(), "--driver", &url]);
    assert!(text(&output.stderr).contains("frontends[\"a\"][1]"), "{}", text(&output.stderr));
    assert_eq!(redis.run::<i64>("DBSIZE"), 0, "a bad file writes nothing");
}

#[test]
fn redis_is_kept_in_step_with_a_file_that_changes() {
    let mut redis = Server::start();
    let backends = ["one", "other"].map(|name| Backend::always(canned::ok(name)));
    let of = |backend: &Backend| format!(r#"{{"frontends": {{"{HOST}": ["x", "{}"]}}}}"#, backend.url());
    let routes = Routes::new("watch", &of(&backends[0]));
    let child = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(["provision", routes.path(), "--driver", &redis.url(), "--watch", "--prune"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program runs");
    let mut child = Ended(child);
    let proxy = Setup::new().driver(redis.url()).start();
    let mut clients = clients(&proxy);
    until_all_say(&mut clients, HOST, "one");
    routes.write(&of(&backends[1]));
    until_all_say(&mut clients, HOST, "other");
    routes.write("{");
    redis.kill();
    until("Redis is away", || proxy.stderr().contains(" is away: "));
    redis.revive();
    routes.write(&of(&backends[0]));
    until_all_say(&mut clients, HOST, "one");
    assert!(child.0.try_wait().expect("asking").is_none(), "it goes on");
}

#[test]
fn keys_that_never_match_are_named_in_the_log() {
    let redis = Server::start();
    for line in ["RPUSH frontend:shop:81 x http://10.0.0.1", "HSET tls:shop.test:443 certificate x key y"] {
        redis.run::<()>(line);
    }
    let proxy = Setup::new().driver(redis.url()).start();
    let named = |key: &str| format!("redis: the key {key} never matches a request: ");
    for key in ["frontend:shop:81", "tls:shop.test:443"] {
        until("a key that is there is named", || proxy.stderr().contains(&named(key)));
    }
    redis.run::<()>("RPUSH frontend:shop.test:80 x http://10.0.0.1");
    redis.run::<()>("RPUSH frontend:good.test http://10.0.0.1 http://10.0.0.2");
    until("a key that is written is named", || proxy.stderr().contains(&named("frontend:shop.test:80")));
    proxy.client().get("good.test", "/");
    until("the list without an identifier", || proxy.stderr().contains("frontend:good.test: item 0 is a URL"));
    assert!(!proxy.stderr().contains(&named("frontend:good.test")));
}
