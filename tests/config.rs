//! The program, asked to check a configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU8, Ordering};

#[test]
fn the_example_is_good() {
    let output = run(Path::new(env!("CARGO_MANIFEST_DIR")), &["--dry"], None);
    let (status, stdout, _) = seen(&output);
    assert_eq!((status, &*stdout), (Some(0), "config/config.json: OK\n"));
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
config/config.json: driver: found a text without a scheme of Redis, expected \"file:PATH\", \"haproxy:PATH\", \"redis:\", \
\"redis://user:password@host:port/database#prefix\" (each part may be left out, rediss: is encrypted), \
\"unix:/path\", \"redis+sentinel://host:port,host:port/service/database\" or \"redis+cluster://host:port,host:port\"
";
    for arguments in [&["--dry"][..], &[]] {
        let output = run(&folder.path, arguments, None);
        assert_eq!(seen(&output), (Some(1), String::new(), expected.into()), "{arguments:?}");
    }
}

#[test]
fn warnings_do_not_make_it_fail() {
    let folder = Folder::new("warnings");
    folder.write("routes.json", r#"{"frontends": {}}"#);
    folder.write("a.json", &format!(r#"{{"colour": 1, {}, "driver": "file:routes.json"}}"#, elsewhere()));
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
        folder.write(name, &format!(r#"{{{}, "driver": "file:routes.json"}}"#, elsewhere()));
    }
    folder.write("routes.json", r#"{"frontends": {}}"#);
    folder.write("config/routes.json", r#"{"frontends": {}}"#);
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

/// An address that no other program and no other test has, and root's own account.
fn elsewhere() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let last = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(r#""http": {{"bind": "127.77.3.{last}", "port": 28459}}, "user": "root", "group": "root""#)
}

/// For other accounts than root's, [`elsewhere`] warns of `user`.
fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

#[test]
fn the_program_alone_says_what_to_do_and_starts_nothing() {
    let folder = Folder::new("alone");
    let (status, stdout, stderr) = seen(&run(&folder.path, &[], None));
    assert_eq!((status, &*stdout, stderr.lines().count()), (Some(1), "", 3), "{stderr}");
    for part in ["no configuration at config/config.json", "sluice demo", "sluice --config FILE"] {
        assert!(stderr.contains(part), "{stderr}");
    }
}

#[test]
fn dry_finds_what_a_start_would() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("dry");
    folder.write("good.json", r#"{"frontends": {"a.test": ["x", "http://10.0.0.1"]}}"#);
    folder.write("bad.json", r#"{"frontends": {"a.test": ["x", "10.0.0.1"]}}"#);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address");
    let with = |more: &str| format!(r#"{{{}, {more}}}"#, elsewhere());
    let rows = [
        (with(r#""driver": "file:bad.json""#), Some(1), "a.test\"][1]: found \"10.0.0.1\""),
        (with(r#""driver": "file:nowhere.json""#), Some(1), "reading the routes file nowhere.json: No such file"),
        (with(r#""driver": "file:good.json", "server": {"accessLog": "/nowhere/a.log"}"#), Some(1), "/nowhere/a.log"),
        (with(r#""driver": "file:good.json", "server": {"pidFile": "/nowhere/pid"}"#), Some(1), "server.pidFile"),
        (with(r#""driver": "file:good.json", "server": {"cpus": "1000-1001"}"#), Some(1), "server.cpus"),
        (with(r#""driver": "redis://127.0.0.1:1""#), Some(0), "warning: driver: connecting to redis://127.0.0.1:1/0"),
        (with(r#""driver": "file:good.json", "server": {"staticDir": "/nowhere"}"#), Some(0), "server.staticDir"),
        (
            r#"{"driver": "file:good.json", "user": "nobody such", "http": {"bind": "127.77.4.1", "port": 28459}}"#
                .into(),
            Some(1),
            "there is no user nobody such",
        ),
        (
            r#"{"driver": "file:good.json", "user": 0, "http": {"bind": "203.0.113.7"}}"#.into(),
            Some(1),
            "listening on 203.0.113.7:80",
        ),
        (
            format!(
                r#"{{"driver": "file:good.json", "user": 0, "http": {{"bind": "127.0.0.1", "port": {}}}}}"#,
                taken.port()
            ),
            Some(0),
            "warning: 127.0.0.1",
        ),
    ];
    for (text, expected, part) in rows {
        folder.write("a.json", &text);
        let (status, stdout, stderr) = seen(&run(&folder.path, &["--dry", "-c", "a.json"], None));
        assert_eq!((status, stdout.contains("OK")), (expected, expected == Some(0)), "{text}: {stderr}");
        assert!(stderr.contains(part), "{text}: {stderr}");
        assert!(!folder.path.join("pid").exists());
    }
}

#[test]
fn a_log_that_is_silenced_by_a_typing_error_is_not() {
    let folder = Folder::new("silence");
    folder.write("a.json", &format!(r#"{{{}, "driver": "file:nowhere.json"}}"#, elsewhere()));
    for (level, told) in
        [("inof", true), ("sluice=dbug", true), ("off", false), ("mio=off,off", false), ("error", false)]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        let output = command.args(["-c", "a.json"]).current_dir(&folder.path).env("RUST_LOG", level).output();
        let (status, _, stderr) = seen(&output.expect("the program runs"));
        assert_eq!(status, Some(1), "{level}");
        assert!(stderr.contains("nowhere.json: No such file"), "{level}: {stderr:?}");
        assert_eq!(stderr.contains("RUST_LOG is"), told, "{level}: {stderr:?}");
    }
}

#[test]
fn routes_reads_file_drivers_and_its_status_tells() {
    let folder = Folder::new("routes");
    folder.write(
        "routes.json",
        r#"{"frontends": {"Shop.Example": ["x", "http://10.0.0.1"], "*.example": ["y", "http://10.0.0.2"], "e": ["z"]}}"#,
    );
    folder.write("a.json", &format!(r#"{{{}, "driver": "file:routes.json"}}"#, elsewhere()));
    for (host, expected, part) in [
        ("shop.example", Some(0), "  shop.example  serves: \"x\", 1 backends\n    0  http://10.0.0.1\n"),
        ("SHOP.example.:8080", Some(0), "  shop.example  serves"),
        ("a.example", Some(0), "  a.example  nothing\n  *.example  serves: \"y\""),
        ("e", Some(0), "no backends: requests get a 502"),
        ("other", Some(1), "no route: requests get a 400"),
        ("a b", Some(1), "no host with an optional port"),
    ] {
        let (status, stdout, stderr) = seen(&run(&folder.path, &["routes", host, "-c", "a.json"], None));
        assert_eq!(status, expected, "{host}: {stdout}{stderr}");
        assert!((stdout.clone() + &stderr).contains(part), "{host}: {stdout}{stderr}");
    }
    let (status, stdout, _) = seen(&run(&folder.path, &["routes", "-c", "a.json"], None));
    let all = "*.example  \"y\"  1 backends\ne  \"z\"  0 backends\nshop.example  \"x\"  1 backends\n";
    assert_eq!((status, &*stdout), (Some(0), all));
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
