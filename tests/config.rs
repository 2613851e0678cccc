//! The program, asked to check a configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[test]
fn the_example_is_good() {
    let output = run(Path::new(env!("CARGO_MANIFEST_DIR")), &["--dry"], None);
    assert_eq!(seen(&output), (Some(0), "config/config.json: OK\n".into(), String::new()));
}

#[test]
fn every_fault_is_named_and_the_status_is_1() {
    let folder = Folder::new("faults");
    folder.write(
        "config/config.json",
        r#"{"server": {"retryOnError": "three", "maxSockts": 5, "port": 8080}, "driver": "nowhere:"}"#,
    );
    let expected = "\
config/config.json: warning: server.port: an old name, use http.port instead
config/config.json: warning: server.maxSockts: unknown setting, ignored; did you mean server.maxSockets?
config/config.json: server.retryOnError: found \"three\", expected a whole number from 0 to 100
config/config.json: driver: found a text without a scheme of Redis, expected \"file:PATH\", \"redis:\", \
\"redis://user:password@host:port/database#prefix\" (each part may be left out, rediss: is encrypted), \
\"unix:/path\" or \"redis+sentinel://host:port,host:port/service/database\"
";
    for arguments in [&["--dry"][..], &[]] {
        let output = run(&folder.path, arguments, None);
        assert_eq!(seen(&output), (Some(1), String::new(), expected.into()), "{arguments:?}");
    }
}

#[test]
fn warnings_do_not_make_it_fail() {
    let folder = Folder::new("warnings");
    folder.write("a.json", r#"{"colour": 1, "driver": "file:routes.json"}"#);
    let output = run(&folder.path, &["--dry", "--config", "a.json"], None);
    let warning = "a.json: warning: colour: unknown setting, ignored\n";
    assert_eq!(seen(&output), (Some(0), "a.json: OK\n".into(), warning.into()));
}

#[test]
fn broken_texts_are_named_by_line_and_column() {
    let folder = Folder::new("syntax");
    folder.write("a.json", "{\n  \"server\": {,\n}");
    let output = run(&folder.path, &["-d", "-c", "a.json"], None);
    assert_eq!(seen(&output), (Some(1), String::new(), "a.json:2:14: key must be a string\n".into()));
}

#[test]
fn the_flavor_selects_the_file_unless_one_is_named() {
    let folder = Folder::new("flavors");
    for name in ["config/config.json", "config/config_dev.json", "other.json"] {
        folder.write(name, r#"{"driver": "file:routes.json"}"#);
    }
    let table = [
        (&["--dry"][..], None, Ok("config/config.json: OK\n")),
        (&["--dry"], Some("dev"), Ok("config/config_dev.json: OK\n")),
        (&["--dry", "--config=other.json"], Some("dev"), Ok("other.json: OK\n")),
        (&["--dry"], Some("test"), Err("config/config_test.json: reading the configuration: No such file")),
    ];
    for (arguments, flavor, expected) in table {
        let (status, stdout, stderr) = seen(&run(&folder.path, arguments, flavor));
        match expected {
            Ok(line) => assert_eq!((status, stdout.as_str(), stderr.as_str()), (Some(0), line, "")),
            Err(beginning) => {
                assert_eq!((status, stdout.as_str()), (Some(1), ""));
                assert!(stderr.starts_with(beginning), "{stderr}");
            }
        }
    }
}

#[test]
fn wrong_arguments_are_named() {
    let folder = Folder::new("arguments");
    let table = [
        (["--cpus", "x"], "\"x\" is no number of a processor; expected a list such as 0-3,8"),
        (["--cpus", "3-1"], "the range 3-1 ends before it begins"),
        (["--workers", "0"], "0 is not in 1..=1024"),
        (["--dry", "demo"], "the subcommand 'demo' cannot be used with"),
        (["--wrokers", "2"], "--workers"),
    ];
    for (arguments, expected) in table {
        let (status, stdout, stderr) = seen(&run(&folder.path, &arguments, None));
        assert_eq!((status, stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
}

fn run(folder: &Path, arguments: &[&str], flavor: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(arguments).current_dir(folder).env_remove("SETTINGS_FLAVOR");
    if let Some(flavor) = flavor {
        command.env("SETTINGS_FLAVOR", flavor);
    }
    command.output().expect("the program runs")
}

/// Status, standard output and standard error.
fn seen(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A folder of one test's own, removed at its end.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("config-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("config")).expect("a folder");
        Self { path }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path.join(name), text).expect("a file");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
