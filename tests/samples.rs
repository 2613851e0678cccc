//! The samples of config/samples and of the image: each can be used as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A copy of a folder of config/, in which a test may put what the samples name.
struct Copy(PathBuf);

impl Copy {
    fn of(folder: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let to = std::env::temp_dir().join(format!("sluice-samples-{}-{number}", std::process::id()));
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(folder), &to);
        Self(to)
    }

    /// What the program says of a file, and whether its status was 0.
    fn check(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_sluice")).args(arguments).current_dir(&self.0).output();
        let output = output.expect("the program runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the samples").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a copy");
        }
    }
}

/// Ports and accounts of a real node are not this machine's: the text with those that any test may use.
fn for_tests(text: &str) -> String {
    let account = if nix::unistd::Uid::effective().is_root() { "\"root\"" } else { "null" };
    let text = text.replace("\"user\": \"www-data\"", &format!("\"user\": {account}"));
    let text = text.replace("\"port\": 80,", "\"port\": 28461,").replace("\"port\": 80}", "\"port\": 28461}");
    let text = text.replace("\"port\": 443", "\"port\": 28462").replace("\"port\": 8080", "\"port\": 28463");
    text.replace("[\"0.0.0.0\", \"::\"]", "\"127.77.3.10\"")
        .replace("/var/log/sluice/", "")
        .replace("/var/lib/sluice/", "")
}

#[test]
fn each_sample_can_be_used() {
    let samples = Copy::of("samples");
    let pair = rcgen::generate_simple_self_signed(["www.example.com".to_owned()]).expect("a certificate");
    fs::create_dir_all(samples.0.join("tls")).expect("a folder");
    fs::write(samples.0.join("tls/default.crt"), pair.cert.pem()).expect("a certificate");
    fs::write(samples.0.join("tls/default.key"), pair.signing_key.serialize_pem()).expect("a key");
    for name in ["quick-start.json", "edge-redis.json", "tls.json", "haproxy.json"] {
        let path = samples.0.join(name);
        let text = fs::read_to_string(&path).expect("a sample");
        assert!(text.contains("\"// this\": "), "{name} says what it is");
        fs::write(&path, for_tests(&text)).expect("a file");
        for arguments in [&["--dry", "--config", name][..], &["check", name]] {
            let (is_good, said) = samples.check(arguments);
            assert!(is_good && said.contains(&format!("{name}: OK")), "{arguments:?}: {said}");
            assert!(!said.contains("unknown setting"), "{arguments:?}: {said}");
        }
    }
    let (is_good, said) = samples.check(&["check", "routes.json", "haproxy/haproxy.cfg"]);
    assert!(is_good && said.contains("routes.json: OK, a routes file with 2 lists"), "{said}");
    assert!(said.contains("sluice serves it"), "{said}");
}

#[test]
fn the_image_has_a_configuration_that_serves() {
    let image = Copy::of("docker");
    let path = image.0.join("config.json");
    fs::write(&path, for_tests(&fs::read_to_string(&path).expect("its configuration"))).expect("a file");
    let text = fs::read_to_string(&path).expect("a file");
    let account = if nix::unistd::Uid::effective().is_root() { "\"root\"" } else { "null" };
    fs::write(&path, text.replacen('{', &format!("{{\"user\": {account},"), 1)).expect("a file");
    let (is_good, said) = image.check(&["check", "config.json", "routes.json"]);
    assert!(is_good && said.contains("config.json: OK") && said.contains("routes.json: OK"), "{said}");
}

#[test]
fn a_file_that_cannot_be_used_is_named_whatever_it_is() {
    let samples = Copy::of("samples");
    fs::write(samples.0.join("bad-routes.json"), r#"{"frontends": {"a": ["x", "nowhere"]}}"#).expect("a file");
    fs::write(samples.0.join("bad.json"), r#"{"server": {"workers": 0}}"#).expect("a file");
    fs::write(samples.0.join("bad.cfg"), "frontend a\n    bnd :80\n").expect("a file");
    for (name, part) in [
        ("bad-routes.json", "found \"nowhere\""),
        ("bad.json", "server.workers: found 0"),
        ("bad.cfg", "bad.cfg:2:5: "),
        ("nowhere.json", "reading nowhere.json: No such file"),
    ] {
        let (is_good, said) = samples.check(&["check", name]);
        assert!(!is_good && said.contains(part), "{name}: {said}");
    }
}
