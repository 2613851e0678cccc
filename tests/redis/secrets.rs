//! Passwords of Redis come from files and from the environment, and nothing that is read from Redis shows a secret.

use crate::changes::{clients, until_all_say};
use crate::server::{Server, run, set};
use crate::support::backend::Backend;
use crate::support::proxy::{Proxy, Setup};
use crate::support::secrets::{PASSWORDS, assert_hidden, broken_pem, broken_urls};
use crate::support::tls::Authority;
use crate::support::{HOST, canned, until};
use serde_json::json;
use std::fs;
use std::process::Command;

const PASSWORD: &str = "Xq7vZk/9L@wPz";

fn command_line(proxy: &Proxy) -> String {
    let line = fs::read(format!("/proc/{}/cmdline", proxy.pid())).expect("a running process");
    String::from_utf8_lossy(&line).into_owned()
}

fn tool(setup_dir: &std::path::Path, arguments: &[&str], password: Option<&str>) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(arguments).current_dir(setup_dir).env_remove("SLUICE_REDIS_PASSWORD");
    if let Some(password) = password {
        command.env("SLUICE_REDIS_PASSWORD", password);
    }
    let output = command.output().expect("the program runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), said)
}

#[test]
fn passwords_come_from_a_file_or_the_environment() {
    let redis = Server::with(&["--requirepass", PASSWORD]);
    let mut connection = redis.connect_as(":Xq7vZk%2F9L%40wPz@");
    let backends = ["one", "other"].map(|name| Backend::always(canned::ok(name)));
    let by_file = json!({"url": redis.url(), "passwordFile": "password"});
    for (driver, environment) in [
        (by_file.clone(), ""),
        (json!([by_file, {"url": redis.url()}]), PASSWORD),
        (json!(redis.url()), PASSWORD),
        // What is said of one Redis counts for that.
        (by_file.clone(), "another"),
    ] {
        set(&mut connection, &format!("frontend:{HOST}"), &[backends[0].url()]);
        let setup = Setup::new().driver(driver.clone()).secret("password", &format!("{PASSWORD}\n"));
        let proxy = setup.env("SLUICE_REDIS_PASSWORD", environment).env("RUST_LOG", "trace").start();
        let mut clients = clients(&proxy);
        until_all_say(&mut clients, HOST, "one");
        set(&mut connection, &format!("frontend:{HOST}"), &[backends[1].url()]);
        until_all_say(&mut clients, HOST, "other");
        assert_hidden("a log", PASSWORD, &proxy.stderr());
        assert_hidden("the list of processes", PASSWORD, &command_line(&proxy));
    }
}

#[test]
fn tools_take_the_configuration_with_its_password() {
    let redis = Server::with(&["--requirepass", PASSWORD]);
    let url = redis.url();
    let driver = json!({"url": url, "passwordFile": "password"});
    let setup = Setup::new().driver(driver).secret("password", PASSWORD);
    let setup = setup.file("carried.json", r#"{"frontends": {"a.test": ["x", "http://10.0.0.1"]}}"#);
    setup.dry();
    let dir = setup.dir();
    let serves = "frontend:a.test  serves: \"x\", 1 backends";
    for (arguments, password, expected) in [
        (vec!["provision", "carried.json", "--config", "config.json"], None, "1 lists written"),
        (vec!["routes", "a.test", "--config", "config.json"], None, serves),
        (vec!["routes", "a.test", "--driver", &url, "--password-file", "password"], None, serves),
        (vec!["routes", "a.test", "--driver", &url], Some(PASSWORD), serves),
    ] {
        let (is_good, said) = tool(dir, &arguments, password);
        assert!(is_good && said.contains(expected), "{arguments:?}: {said}");
        assert_hidden("a tool", PASSWORD, &said);
    }
    let with_password = url.replace("//", "//:Xq7vZk%2F9L%40wPz@");
    for (arguments, password, expected) in [
        (vec!["routes", "a.test", "--driver", &url], None, "NOAUTH"),
        (vec!["routes", "a.test", "--driver", &url], Some("Xq7vZk"), "connecting to"),
        (vec!["routes", "a.test", "--driver", &with_password, "--password-file", "password"], None, "name only one"),
        (vec!["routes", "a.test", "--driver", &url, "--password-file", "nowhere"], None, "nowhere: No such file"),
        (vec!["routes", "a.test", "--config", "nowhere.json"], None, "nowhere.json: reading the configuration"),
    ] {
        let (is_good, said) = tool(dir, &arguments, password);
        assert!(!is_good && said.contains(expected), "{arguments:?}: {said}");
        assert_hidden("a tool", PASSWORD, &said);
    }
    let (is_good, said) = tool(dir, &["routes", "a.test", "--driver", &with_password], None);
    assert!(is_good && said.contains("in the list of processes"), "{said}");
    let _ = fs::remove_dir_all(dir);
}

#[test]
fn a_wrong_password_is_told_and_not_shown() {
    let redis = Server::with(&["--requirepass", "right"]);
    let setup =
        Setup::new().driver(json!({"url": redis.url(), "passwordFile": "password"})).secret("password", PASSWORD);
    let proxy = setup.env("RUST_LOG", "trace").start();
    until("the failure is told", || proxy.stderr().contains(" is away: "));
    assert_hidden("a log", PASSWORD, &proxy.stderr());
}

#[test]
fn no_record_of_redis_shows_its_secrets() {
    let redis = Server::start();
    let mut connection = redis.connect();
    let authority = Authority::new();
    let pair = authority.issue(&["a.test"]);
    let mut hosts = Vec::new();
    for (number, (_, text)) in broken_pem(&pair.key).into_iter().enumerate() {
        for (part, certificate) in [("k", &pair.certificate), ("c", &text)] {
            let host = format!("{part}{number}.test");
            let fields = [("certificate", certificate), ("key", &text)];
            redis::cmd("HSET").arg(format!("tls:{host}")).arg(&fields).exec(&mut connection).expect("a hash");
            hosts.push(host);
        }
        redis::cmd("SET").arg(format!("tls:s{number}.test")).arg(&text).exec(&mut connection).expect("a string");
        redis::cmd("RPUSH")
            .arg(format!("frontend:f{number}.test"))
            .arg(&["x", &text])
            .exec(&mut connection)
            .expect("a list");
    }
    let mut frontends = Vec::new();
    for (number, url) in broken_urls("http", "127.0.0.1:1", PASSWORDS[0]).iter().enumerate() {
        for (part, list) in [("u", vec!["x", url]), ("v", vec!["x", "http://127.0.0.1:1", url]), ("w", vec![url, url])]
        {
            let host = format!("{part}{number}.test");
            redis::cmd("RPUSH").arg(format!("frontend:{host}")).arg(&list).exec(&mut connection).expect("a list");
            frontends.push(host);
        }
    }
    let setup = Setup::new().driver(redis.url()).with_https().with_access_log().env("RUST_LOG", "trace").workers(1);
    let proxy = setup.start();
    until("Redis is there", || proxy.client().get("nowhere.test", "/").status() == 400);
    let trust = authority.trust();
    let mut said = String::new();
    for host in &hosts {
        said.push_str(&format!("{:?}", trust.try_connect(proxy.secure_address(), host).err()));
    }
    for host in &frontends {
        said.push_str(&proxy.client().get(host, "/").text());
        said.push_str(&tool(std::path::Path::new("/"), &["routes", host, "--driver", &redis.url()], None).1);
    }
    said.push_str(&tool(std::path::Path::new("/"), &["routes", "--driver", &redis.url()], None).1);
    said.push_str(&proxy.stderr());
    said.push_str(&proxy.read("access.log"));
    assert!(said.contains("its line breaks are lost") && said.contains("a user name or password"), "{said}");
    assert_hidden("Redis", &pair.key, &said);
    assert_hidden("Redis", PASSWORDS[0], &said);
    run::<()>(&mut connection, "PING");
}
