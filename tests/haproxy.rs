//! `sluice haproxy`: what the program says of files, its exit status, and the table in docs/from-haproxy.md.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder that goes away again.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sluice-haproxy-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("writing a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn check(arguments: &[&str], path: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    let output = command.args(["haproxy", "check"]).args(arguments).arg(path).env("PORT", "8080").output();
    let Output { status, stdout, stderr } = output.expect("the program");
    (status.code(), String::from_utf8(stdout).expect("text") + &String::from_utf8(stderr).expect("text"))
}

#[test]
fn the_table_in_the_documentation_is_the_programs() {
    let output = Command::new(env!("CARGO_BIN_EXE_sluice")).args(["haproxy", "words"]).output().expect("the program");
    let words = String::from_utf8(output.stdout).expect("text");
    let documentation = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/from-haproxy.md");
    let text = fs::read_to_string(documentation).expect("docs/from-haproxy.md");
    let (_, table) = text.split_once("\n## All keywords\n").expect("the section \"All keywords\"");
    let differs = table.trim().lines().zip(words.trim().lines()).find(|(found, expected)| found != expected);
    assert_eq!(
        differs, None,
        "put the output of `sluice haproxy words` below \"All keywords\" in docs/from-haproxy.md"
    );
    assert_eq!(table.trim().lines().count(), words.trim().lines().count(), "lines are missing or too many");
}

#[test]
fn every_word_is_told_with_its_place_and_the_status_is_the_verdict() {
    let folder = Folder::new("check");
    let frontend = "defaults\n  mode http\nfrontend f\n  bind 127.0.0.1:$PORT\n";
    let table: &[(&str, &[&str], i32, &[&str])] = &[
        ("", &[], 0, &["f.cfg:4:3: honoured bind", "serves it without losses"]),
        ("  capture cookie A len 10\n", &[], 0, &["f.cfg:5:3: lost capture cookie: ", "with 1 losses"]),
        ("  capture cookie A len 10\n", &["--whole"], 1, &["with 1 losses"]),
        (
            "  http-request deny if { ssl_c_used }\n",
            &[],
            1,
            &["f.cfg:5:3: refused http-request: ssl_c_used: ", "--lossy"],
        ),
        ("  http-request deny if { ssl_c_used }\n", &["--lossy"], 0, &["with 1 losses"]),
        (
            "  tiemout client 5s\n",
            &["--lossy"],
            1,
            &["f.cfg:5:3: wrong tiemout: ", "cannot serve it: 1 keywords are wrong"],
        ),
        ("  timeout client \x1b[31m\n", &[], 1, &["f.cfg:5:18: wrong timeout client", "\\u{1b}"]),
    ];
    for (lines, arguments, status, parts) in table {
        let path = folder.write("f.cfg", &format!("{frontend}{lines}"));
        let (found, text) = check(arguments, &path);
        assert_eq!(found, Some(*status), "{lines:?} {arguments:?}:\n{text}");
        for part in *parts {
            assert!(text.contains(part), "{lines:?}: no {part:?} in\n{text}");
        }
        assert!(!text.contains('\x1b'), "{text:?}");
        let (_, short) = check(&[&["--losses"], *arguments].concat(), &path);
        assert!(!short.contains(": honoured") && short.lines().count() < text.lines().count(), "{short}");
    }
}

#[test]
fn a_folder_is_its_files_in_order_and_a_missing_file_is_named() {
    let folder = Folder::new("folder");
    folder.write("20-backend.cfg", "backend b\n  server a 127.0.0.1:1\n");
    folder.write("10-defaults.cfg", "defaults\n  mode http\n");
    folder.write("notes.txt", "no configuration\n");
    let (status, text) = check(&[], &folder.0);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.find("10-defaults.cfg:1:1") < text.find("20-backend.cfg:2:3: honoured server"), "{text}");
    let (status, text) = check(&[], &folder.0.join("missing.cfg"));
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("missing.cfg: "), "{text}");
}
