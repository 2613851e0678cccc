//! The house in order: a room imports only from lower floors, its files make no circles, and no file outgrows its page.
//!
//! The map is the table at the top of `src/lib.rs`. Paths count wherever they stand: in `use` lines, within code, and
//! in modules of tests too.

#[path = "floors/circles.rs"]
mod circles;
#[path = "floors/tokens.rs"]
mod tokens;

use circles::Modules;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use tokens::{Token, is_name, tokens};

/// Two things live in a file that is longer.
const LINE_LIMIT: usize = 500;

/// Files, and folders seen as one, that import each other. Each is one too many, and none is to follow.
const KNOWN_CIRCLES: &[&str] = &[
    "cluster/admission",
    "cluster/admission/queue",
    "cluster/admission/tokens",
    "cluster/cluster",
    "cluster/demand",
    "cluster/edit",
    "cluster/judgement",
    "cluster/member",
    "cluster/route",
    "directory/certificates",
    "directory/handover",
    "directory/ondemand",
    "directory/ondemand/file",
    "directory/ondemand/import",
    "directory/parse",
    "directory/redis",
];

/// The files of `src/worker` with methods of the whole worker. A component has fields, tests and an interface of its own, so
/// no file is to follow.
const WORKER_FILES: &[&str] = &[
    "batch.rs",
    "commands.rs",
    "drain.rs",
    "effects.rs",
    "fills.rs",
    "haproxy.rs",
    "lazy_registration.rs",
    "lingering.rs",
    "listeners.rs",
    "migration.rs",
    "mod.rs",
    "overload.rs",
    "proxy_protocol.rs",
    "pump.rs",
    "race.rs",
    "request_log.rs",
    "request_mail.rs",
    "routes.rs",
    "service.rs",
    "stats.rs",
    "tenants.rs",
    "tls_handshakes.rs",
    "tunnel_drain.rs",
    "upstreams.rs",
];

/// The one file with unsafe code.
const AUDITED: &str = "src/net/sys.rs";

#[test]
fn every_room_imports_from_lower_floors_only() {
    let src = root().join("src");
    let map = Map::parse(&read(&src.join("lib.rs")));
    let mut faults = Vec::new();
    for file in rust_files(&src) {
        let name = file.strip_prefix(&src).expect("a file of src");
        // The crate's two roots stand above the map.
        if name != Path::new("lib.rs") && name != Path::new("main.rs") {
            faults.extend(map.breaches(name, &read(&file)));
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn no_files_of_a_room_import_each_other_but_those_that_are_known_to() {
    let src = root().join("src");
    let mut modules = Modules::default();
    for file in rust_files(&src) {
        let name = file.strip_prefix(&src).expect("a file of src");
        if name != Path::new("lib.rs") && name != Path::new("main.rs") {
            modules.add(module_path(name), &read(&file));
        }
    }
    let circles = modules.circles();
    let new = circles.iter().filter(|(module, _)| !KNOWN_CIRCLES.contains(&module.as_str()));
    let faults = new.map(|(module, way)| format!("src/{module} is in a circle: {way}"));
    let mended = KNOWN_CIRCLES.iter().filter(|module| !circles.contains_key(**module));
    let mended = mended.map(|module| format!("src/{module} is in no circle: take it out of KNOWN_CIRCLES"));
    let faults: Vec<_> = faults.chain(mended).collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn no_other_file_has_methods_of_the_whole_worker() {
    let room = root().join("src/worker");
    let is_of_worker = |file: &PathBuf| {
        let text = read(file);
        tokens(&text).windows(3).any(|window| ["impl", "Worker", "{"] == [0, 1, 2].map(|place| window[place].text))
    };
    let files =
        rust_files(&room).into_iter().filter(|file| !file.starts_with(room.join("tests")) && is_of_worker(file));
    let names: Vec<_> =
        files.map(|file| file.strip_prefix(&room).expect("of the room").display().to_string()).collect();
    let names: Vec<_> = names.iter().map(String::as_str).filter(|name| *name != "tests.rs").collect();
    assert_eq!(names, WORKER_FILES, "a file with `impl Worker` that is not listed, or one that is and has none");
}

#[test]
fn the_map_and_the_modules_are_the_same_rooms() {
    let text = read(&root().join("src/lib.rs"));
    let map = Map::parse(&text);
    let on_map: BTreeSet<&str> = map.floors.keys().map(String::as_str).collect();
    let tokens = tokens(&text);
    let declared = tokens.windows(3).filter(|window| window[0].text == "mod" && window[2].text == ";");
    let declared: BTreeSet<&str> = declared.map(|window| window[1].text).collect();
    let unmapped: Vec<_> = declared.difference(&on_map).collect();
    let undeclared: Vec<_> = on_map.difference(&declared).collect();
    assert!(unmapped.is_empty(), "src/lib.rs declares {unmapped:?}, which its table of floors does not have");
    assert!(undeclared.is_empty(), "src/lib.rs does not declare {undeclared:?}, which its table of floors has");
}

#[test]
fn no_file_outgrows_its_page() {
    let trees = ["src", "tests", "benches", "loadtest"].map(|tree| root().join(tree));
    let mut faults = Vec::new();
    for file in trees.iter().filter(|tree| tree.exists()).flat_map(|tree| rust_files(tree)) {
        let lines = read(&file).lines().count();
        if lines > LINE_LIMIT {
            let name = file.strip_prefix(root()).expect("a file of this repository").display();
            faults.push(format!(
                "{name} has {lines} lines, and {LINE_LIMIT} are the most: find the two things that live in it and give \
                 one a file of its own (a module of tests may move to `tests.rs` beside it)"
            ));
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn nothing_is_unsafe_but_one_file() {
    let lib = read(&root().join("Cargo.toml"));
    assert!(lib.contains("\nunsafe_code = \"deny\"\n"), "Cargo.toml no longer denies unsafe code");
    let trees = ["src", "tests", "benches", "loadtest"].map(|tree| root().join(tree));
    let mut faults = Vec::new();
    for file in trees.iter().flat_map(|tree| rust_files(tree)) {
        let (text, name) = (read(&file), file.strip_prefix(root()).expect("a file of this repository").display());
        let blocks = tokens(&text).into_iter().filter(|token| token.text == "unsafe");
        if name.to_string() == AUDITED {
            let lines: Vec<_> = text.lines().collect();
            // Attributes and the comment's own lines may stand between.
            let is_told = |line: usize| {
                let above = lines[..line - 1].iter().rev().take_while(|line| line.trim_start().starts_with("//"));
                above.clone().any(|line| line.trim_start().starts_with("// SAFETY:"))
            };
            let untold = blocks.filter(|token| !is_told(token.line));
            faults.extend(untold.map(|token| format!("{name}:{}: why is it sound? `// SAFETY: …`", token.line)));
        } else {
            faults.extend(blocks.map(|token| format!("{name}:{}: unsafe code has its place in {AUDITED}", token.line)));
            // What takes the prohibition back is a way to write it that looks harmless.
            let relaxed =
                text.contains(concat!("allow(unsafe", "_code")) || text.contains(concat!("expect(unsafe", "_code"));
            faults.extend(relaxed.then(|| format!("{name}: unsafe code is allowed, and its place is {AUDITED}")));
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn breaches_are_found_wherever_they_stand() {
    let map = Map::parse(
        "//! | floor | room | what |\n//! | 0 | [`base`] | a |\n//! | 2 | [`page`], [`log`] | b |\n//! | 3 | [`top`] | c |",
    );
    let to_top = "imports from `top` (floor 3)";
    let to_log = "imports from `log` (floor 2)";
    let table: &[(&str, &str, &[&str])] = &[
        ("page/mod.rs", "use crate::base::clock::Clock;\nuse crate::page::x;", &[]),
        ("page/mod.rs", "use std::fmt;\nuse crate::log::Log;", &["page/mod.rs:2: `page` (floor 2) imports from `log`"]),
        ("page/mod.rs", "use crate::{base::{clock, top}, top::T};", &[to_top]),
        ("base/clock.rs", "fn f() { crate::page::phrase(1) }", &["`base` (floor 0) imports from `page` (floor 2)"]),
        ("top.rs", "use crate::{log::Log, page,};", &[]),
        ("page/a.rs", "use super::b;\nuse super::super::top;", &["page/a.rs:2: "]),
        ("page/mod.rs", "mod tests { use super::x; use super::super::top; }\nuse super::log;", &[to_top, to_log]),
        ("page/mod.rs", "mod tests { mod inner { use super::super::top; } }", &[]),
        ("log/mod.rs", "// crate::top\n/* a /* b */ crate::top */ /// [`crate::top`]\nfn f() {}", &[]),
        ("log/mod.rs", "const A: &str = \"\\\" crate::top \"; const B: &str = r#\"\" crate::top\"#;", &[]),
        ("log/mod.rs", "fn f<'a>(x: &'a str) { let _ = ['\"', '\\'', b'x']; crate::top::g() }", &[to_top]),
        ("log/mod.rs", "pub(crate) fn f() {}\npub(super) fn g() {}\npub(in crate::log) fn h() {}", &[]),
        ("log/mod.rs", "use crate as all;\nuse crate::*;", &["log/mod.rs:1: name a room", "log/mod.rs:2: name a room"]),
        ("log/mod.rs", "use crate::attic::Box;", &["`attic` is not in the table of floors"]),
        ("attic/mod.rs", "", &["`attic` is not in the table of floors"]),
    ];
    for (file, text, expected) in table {
        let found = map.breaches(Path::new(file), text);
        assert_eq!(found.len(), expected.len(), "{text}: {found:#?}");
        for (found, expected) in found.iter().zip(*expected) {
            assert!(found.contains(expected), "{text}: expected {expected}, found {found}");
        }
    }
}

/// The floor of each room.
struct Map {
    floors: BTreeMap<String, u32>,
}

impl Map {
    /// Reads the rows ``//! | 2 | [`page`], [`access_log`] | … |``.
    fn parse(lib: &str) -> Self {
        let mut floors = BTreeMap::new();
        for line in lib.lines() {
            let mut cells = line.strip_prefix("//! |").unwrap_or_default().split('|').map(str::trim);
            let (Some(floor), Some(rooms)) = (cells.next().and_then(|cell| cell.parse().ok()), cells.next()) else {
                continue;
            };
            for room in rooms.split("[`").skip(1).filter_map(|rest| rest.split_once("`]")).map(|(room, _)| room) {
                let earlier = floors.insert(room.to_owned(), floor);
                assert_eq!(earlier, None, "src/lib.rs: `{room}` stands twice in the table of floors");
            }
        }
        assert!(!floors.is_empty(), "src/lib.rs: its table of floors was not found");
        Self { floors }
    }

    /// What is wrong with the paths in a file; `name` is relative to `src`.
    fn breaches(&self, name: &Path, text: &str) -> Vec<String> {
        let modules = module_path(name);
        let room = &modules[0];
        let Some(floor) = self.floors.get(room) else {
            return vec![format!("{}: {}", name.display(), not_on_map(room))];
        };
        let mut faults = Vec::new();
        for (line, other) in rooms_named(&tokens(text), modules.len()) {
            let fault = match self.floors.get(other) {
                _ if other == room => continue,
                Some(other_floor) if other_floor < floor => continue,
                Some(other_floor) => format!(
                    "`{room}` (floor {floor}) imports from `{other}` (floor {other_floor}), but only lower floors are \
                     open to it: move what both need further down, or hand it in from above"
                ),
                None if other.starts_with(is_name) => not_on_map(other),
                None => "name a room after `crate::`, so that it can be seen which one is meant".to_owned(),
            };
            faults.push(format!("{}:{line}: {fault}", name.display()));
        }
        faults
    }
}

fn not_on_map(room: &str) -> String {
    format!("`{room}` is not in the table of floors at the top of src/lib.rs")
}

/// `page/load.rs` is `page`, `load`; `page/mod.rs` is `page`.
fn module_path(name: &Path) -> Vec<String> {
    let parts = name.with_extension("");
    let parts = parts.iter().map(|part| part.to_string_lossy().into_owned());
    parts.filter(|part| part != "mod").collect()
}

/// The first name of every path that starts at the crate's root, and its line. `depth` is the file's own below the
/// root: so many `super` lead there.
fn rooms_named<'t>(tokens: &[Token<'t>], depth: usize) -> Vec<(usize, &'t str)> {
    let text = |index: usize| tokens.get(index).map_or("", |token| token.text);
    let mut found = Vec::new();
    // For each open brace, whether it is a module's.
    let mut braces = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        match text(index) {
            "{" => braces.push(index >= 2 && text(index - 2) == "mod"),
            "}" => drop(braces.pop()),
            "crate" if text(index + 1) == "::" => first_names(&tokens[index + 2..], &mut found),
            "crate" if text(index + 1) == "as" => found.push((tokens[index].line, "*")),
            "super" => {
                let levels = depth + braces.iter().filter(|is_module| **is_module).count();
                let mut climbed = 1;
                while text(index + 1) == "::" && text(index + 2) == "super" {
                    index += 2;
                    climbed += 1;
                }
                if climbed >= levels && text(index + 1) == "::" {
                    first_names(&tokens[index + 2..], &mut found);
                }
            }
            _ => {}
        }
        index += 1;
    }
    found
}

/// What follows `crate::`: one name, or those that begin the branches of a group.
fn first_names<'t>(tokens: &[Token<'t>], found: &mut Vec<(usize, &'t str)>) {
    let mut depth = 0;
    let mut is_first = true;
    for token in tokens {
        match token.text {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 1 => is_first = true,
            name if is_first => {
                found.push((token.line, name));
                is_first = false;
            }
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("reading {}: {error}", dir.display())) {
        let path = entry.unwrap_or_else(|error| panic!("reading {}: {error}", dir.display())).path();
        if path.is_dir() {
            // What a build leaves behind follows no style.
            files.extend(if path.ends_with("target") { Vec::new() } else { rust_files(&path) });
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
}
