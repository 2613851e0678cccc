//! Secrets never reach a log, a page, a list of processes or a terminal: each secret-bearing setting, record and file, in
//! broken forms, and a search of everything the program says.

use crate::support::backend::Backend;
use crate::support::canned;
use crate::support::proxy::Setup;
use crate::support::secrets::{PASSWORDS, assert_hidden, broken_pem, broken_urls};
use crate::support::tls::{Authority, Pair};
use crate::support::{HOST, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

/// What the program says of this configuration when it checks it, when it starts, and when its tools read it.
fn said_of(setup: Setup) -> String {
    let (_, dry) = setup.dry();
    let config = setup.dir().join("config.json");
    let mut said = dry;
    for tool in [&["routes", HOST][..], &["provision", "routes.json"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        let output = command.args(tool).arg("--config").arg(&config).current_dir(setup.dir()).output();
        let output = output.expect("the program runs");
        said.push_str(&String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    }
    let (status, stderr) = setup.start_in_vain();
    assert!(!status.success(), "a bad configuration serves: {said}");
    said + &stderr
}

#[test]
fn no_path_setting_shows_a_key_that_was_pasted_there() {
    let pair = Authority::new().issue(&["a.test"]);
    for (form, text) in broken_pem(&pair.key).into_iter().chain([("as it is", pair.key.clone())]) {
        let mut said = String::new();
        for key in ["cert", "key", "ca", "ocsp", "clientCa"] {
            let setup = Setup::new().default_certificate(&pair).with_https().set_https("clientAuth", "required");
            said.push_str(&setup.set_https(key, text.as_str()).dry().1);
        }
        for key in ["cert", "key", "ca"] {
            let mut tls = json!({"cert": "a.crt", "key": "a.key"});
            tls[key] = json!(text);
            said.push_str(&Setup::new().set("backendTls", tls).dry().1);
        }
        assert_hidden(form, &pair.key, &said);
        assert!(said.contains("https.key: found"), "{form}: {said}");
    }
}

#[test]
fn no_file_of_a_key_is_shown() {
    let authority = Authority::new();
    let pair = authority.issue(&["a.test"]);
    for (form, text) in broken_pem(&pair.key).into_iter().chain([("as it is", pair.key.clone())]) {
        let in_key = Pair { key: text.clone(), ..pair.clone() };
        let in_certificate = Pair { certificate: text.clone(), ..pair.clone() };
        let mut said = String::new();
        for pair in [in_key, in_certificate] {
            said.push_str(&Setup::new().with_https().default_certificate(&pair).dry().1);
            let setup = Setup::new().file("b.crt", &pair.certificate).secret("b.key", &pair.key);
            said.push_str(&setup.set("backendTls", json!({"cert": "b.crt", "key": "b.key"})).dry().1);
        }
        let setup = Setup::new().with_https().default_certificate(&pair).secret("ca.pem", &text);
        let setup = setup.set_https("clientAuth", "required").set_https("clientCa", "ca.pem");
        said.push_str(&setup.set_https("ca", "ca.pem").dry().1);
        assert_hidden(form, &pair.key, &said);
    }
    let setup =
        Setup::new().with_https().default_certificate(&Pair { key: pair.key.replace('\n', "\\n"), ..pair.clone() });
    assert_hidden("a start", &pair.key, &said_of(setup));
}

#[test]
fn no_setting_shows_its_password() {
    let pair = Authority::new().issue(&["a.test"]);
    for password in PASSWORDS {
        let mut drivers: Vec<Value> = Vec::new();
        for scheme in ["redis", "unix", "redis+sentinel", "rdis"] {
            let urls = broken_urls(scheme, "127.0.0.1:1x", password);
            drivers.extend(urls.iter().map(|url| json!(url)));
            drivers.extend(urls.iter().take(6).map(|url| json!({"url": url, "passwordFile": "password"})));
            drivers.extend(urls.iter().take(3).map(|url| json!([url, "file:routes.json"])));
        }
        for url in [format!("unix:/nowhere?pass={password}&what=1"), format!("unix:nowhere?pass={password}")] {
            drivers.push(json!(url));
        }
        drivers.push(json!({"url": "redis:", "passwordFile": "two"}));
        for driver in drivers {
            let setup = Setup::new().driver(driver.clone()).secret("password", password);
            let setup = setup.secret("two", &format!("{password}\n{password}"));
            let (_, said) = setup.dry();
            let _ = fs::remove_dir_all(setup.dir());
            assert_hidden(&driver.to_string(), password, &said);
        }
        for passphrase in [json!(password), json!([password]), json!({ "is": password })] {
            let setup = Setup::new().with_https().default_certificate(&pair).set_https("passphrase", passphrase);
            let (_, said) = setup.dry();
            assert_hidden("a passphrase", password, &said);
        }
    }
    let driver = format!("redis://:{}@127.0.0.1:port", PASSWORDS[0]);
    assert_hidden("a start", PASSWORDS[0], &said_of(Setup::new().driver(driver)));
}

#[test]
fn no_argument_shows_its_password() {
    for password in PASSWORDS {
        for url in broken_urls("redis", "127.0.0.1:1", password) {
            for arguments in [
                vec!["routes", "--driver", &url],
                vec!["routes", HOST, "--driver", &url],
                vec!["routes", HOST, &url],
                vec!["routes", "--drivr", &url],
                vec![&url],
                vec!["provision", "/nowhere/routes.json", "--driver", &url],
                vec!["--config", "/nowhere/config.json", &url],
            ] {
                let output = Command::new(env!("CARGO_BIN_EXE_sluice")).args(&arguments).output();
                let output = output.expect("the program runs");
                let said = [output.stdout, output.stderr].concat();
                assert_hidden(&arguments.join(" "), password, &String::from_utf8_lossy(&said));
                assert!(!output.status.success(), "{arguments:?}");
            }
        }
    }
}

#[test]
fn no_routes_file_shows_its_secrets() {
    let pair = Authority::new().issue(&["a.test"]);
    let certificates = |record: Value| json!({"frontends": {}, "certificates": {"a.test": record}}).to_string();
    let mut texts = vec![("a key as the file", pair.key.clone()), ("a key as JSON", json!(pair.key).to_string())];
    texts.push(("a list of keys", json!([pair.key]).to_string()));
    for (form, text) in broken_pem(&pair.key) {
        let good = &pair.certificate;
        texts.push((form, certificates(json!({"certificate": good, "key": text}))));
        texts.push((form, certificates(json!({"certificate": text, "key": text}))));
        texts.push((form, certificates(json!({"certificate": good, "key": [text]}))));
        texts.push((form, certificates(json!({"certificate": good, "key": good, "ocsp": text}))));
        texts.push((form, certificates(json!(text))));
        texts.push((form, certificates(json!({"certificate": good, "key": text})).replace("\\n", "\n")));
        texts.push((form, text));
    }
    for (form, text) in texts {
        assert_hidden(form, &pair.key, &said_of_routes(&text));
    }
    for password in PASSWORDS {
        for url in broken_urls("http", "127.0.0.1:1", password) {
            for list in [json!(["x", url]), json!([url]), json!([url, url]), json!(url)] {
                let text = json!({"frontends": {"a.test": list}}).to_string();
                assert_hidden(&text, password, &said_of_routes(&text));
            }
        }
    }
}

/// What `provision` says of a routes file; it would write to nowhere.
fn said_of_routes(text: &str) -> String {
    let setup = Setup::new().file("routes.json", text);
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    let output = command.args(["provision", "routes.json", "--driver", "redis://127.0.0.1:1"]).current_dir(setup.dir());
    let output = output.output().expect("the program runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let (_, dry) = setup.dry();
    let _ = fs::remove_dir_all(setup.dir());
    said + &dry
}

/// The log at its most verbose, the access log and the pages of a proxy that serves beside bad records.
#[test]
fn no_log_and_no_page_shows_a_secret() {
    let authority = Authority::new();
    let pair = authority.issue(&["a.test"]);
    let backend = Backend::always(canned::ok("ok"));
    let forms = broken_pem(&pair.key);
    let mut setup = Setup::new().with_https().with_access_log().env("RUST_LOG", "trace").workers(1);
    for (number, (_, text)) in forms.iter().filter(|(_, text)| text.contains("-----BEGIN ")).enumerate() {
        for (part, bad) in [
            ("key", Pair { key: text.clone(), ..pair.clone() }),
            ("certificate", Pair { certificate: text.clone(), key: text.clone() }),
        ] {
            setup = setup.certificate(&format!("{part}{number}.test"), &bad);
        }
    }
    let url = format!("{}/?pass={}", backend.url(), PASSWORDS[0]);
    let setup = setup
        .certificate("a.test", &pair)
        .route(HOST, [url])
        .route("dead.test", [format!("http://127.0.0.1:1/?{}", PASSWORDS[0])]);
    let proxy = setup.start();
    let trust = authority.trust();
    let mut said = String::new();
    for number in 0..forms.len() {
        for part in ["key", "certificate"] {
            let name = format!("{part}{number}.test");
            said.push_str(&format!("{:?}", trust.try_connect(proxy.secure_address(), &name).err()));
        }
    }
    assert_eq!(proxy.client().get(HOST, "/").status(), 200);
    for host in ["dead.test", "unknown.test"] {
        said.push_str(&proxy.client().get(host, "/").text());
    }
    for (_, text) in &forms {
        proxy.write_routes_text(
            &json!({"frontends": {}, "certificates": {"a": {"certificate": text, "key": [text]}}}).to_string(),
        );
        proxy.signal(Signal::SIGHUP);
    }
    proxy.write_routes_text("{");
    until("the last edit is refused", || proxy.stderr().contains("EOF while parsing"));
    said.push_str(&proxy.log_lines("access.log", 3).join("\n"));
    said.push_str(&proxy.stderr());
    assert!(said.contains("its line breaks are lost"), "{said}");
    assert_hidden("a running proxy", &pair.key, &said);
    assert_hidden("a running proxy", PASSWORDS[0], &said);
}
