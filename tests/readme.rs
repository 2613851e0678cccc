//! README.md and the pages of docs/, against the program and against each other.

use sluice::base::reason::FailureReason;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// README.md is one page that a reader finishes.
const README_LIMIT: usize = 8 * 1024;

/// Trees with pages of Markdown.
const TREES: &[&str] = &["", "docs", "tests", "loadtest"];

#[test]
fn the_table_of_reasons_has_every_reason_in_order() {
    let text = read("docs/errors.md");
    let rows = text.lines().skip_while(|line| *line != "| reason | status | when |").skip(2);
    let in_table: Vec<_> = rows.map_while(row).collect();
    let known: Vec<_> = FailureReason::ALL.iter().map(|reason| (reason.name(), reason.status())).collect();
    assert_eq!(in_table, known);
}

/// Name and status of ``| `name` | 400 | … |``.
fn row(line: &str) -> Option<(&str, u16)> {
    let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
    Some((name, rest.split_once(" |")?.0.parse().ok()?))
}

#[test]
fn the_command_line_is_that_of_the_program() {
    let output = Command::new(env!("CARGO_BIN_EXE_sluice")).arg("--help").output().expect("the program");
    let help = String::from_utf8(output.stdout).expect("text");
    assert!(read("docs/command-line.md").contains(help.trim_end()), "docs/command-line.md lacks this text:\n{help}");
}

/// The output of a check that finds nothing.
const OK: &str = "config.json: OK";

#[test]
fn the_tours_show_what_a_check_of_their_files_prints() {
    for page in ["README.md", "docs/tour.md"] {
        let folder = std::env::temp_dir().join(format!("sluice-readme-{}-{}", std::process::id(), page.len()));
        fs::create_dir_all(&folder).expect("a folder");
        let text = read(page);
        let lines: Vec<_> = text.lines().collect();
        let mut checks = 0;
        for (at, line) in lines.iter().enumerate() {
            let rest = &lines[at + 1..];
            if let Some(file) = line.strip_prefix("$ cat > ").and_then(|line| line.strip_suffix(" <<'END'")) {
                let content = rest.iter().take_while(|line| **line != "END").map(|line| format!("{line}\n"));
                fs::write(folder.join(file), content.collect::<String>()).expect("a file");
            } else if line.starts_with("$ sed -i ") {
                // The edit before it, as it was written, is a fault that the page shows.
                let faults = check(&folder);
                let shown = |fault: &String| text.contains(fault.trim_start_matches("config.json: "));
                assert!(faults.iter().all(|fault| fault == OK || shown(fault)), "{page}: {faults:?}");
                let status = Command::new("sh").args(["-c", &line[2..]]).current_dir(&folder).status().expect("sh");
                assert!(status.success(), "{page}: {line}");
            } else if *line == "$ sluice --config config.json --dry" {
                let shown: Vec<_> = rest.iter().take_while(|line| !line.starts_with(['$', '`'])).copied().collect();
                // The first check of the tour comes before its routes; a check may read them.
                let routes = folder.join("routes.json");
                if !routes.exists() {
                    fs::write(routes, "{\"frontends\": {}}").expect("a file");
                }
                assert_eq!(check(&folder), shown, "{page}");
                checks += 1;
            }
        }
        assert!(checks > 0, "{page} shows no check");
        assert_eq!(check(&folder), [OK], "{page}: its last configuration");
        fs::remove_dir_all(&folder).expect("the folder");
    }
}

/// The lines of `sluice --dry`, in the order in which a terminal shows them. Warnings of addresses in use are about
/// this machine.
fn check(folder: &Path) -> Vec<String> {
    let program = env!("CARGO_BIN_EXE_sluice");
    let output = Command::new(program)
        .args(["--config", "config.json", "--dry"])
        .current_dir(folder)
        .env_remove("SETTINGS_FLAVOR")
        .output()
        .expect("the program");
    let text = [output.stderr, output.stdout].concat();
    let text = String::from_utf8(text).expect("text");
    text.lines().filter(|line| !line.contains("127.0.0.1:")).map(str::to_owned).collect()
}

#[test]
fn readme_is_short() {
    let len = read("README.md").len();
    assert!(len <= README_LIMIT, "README.md has {len} bytes, and {README_LIMIT} are the most: docs/ has room");
}

#[test]
fn every_page_of_the_book_is_listed() {
    for index in ["docs/SUMMARY.md", "README.md"] {
        let text = read(index);
        for page in pages("docs") {
            let name = page.file_name().and_then(|name| name.to_str()).expect("a name");
            let listed = text.contains(&format!("({name})")) || text.contains(&format!("(docs/{name})"));
            assert!(listed || name == "SUMMARY.md", "{index} does not list docs/{name}");
        }
    }
}

#[test]
fn links_lead_somewhere() {
    let mut count = 0;
    let mut faults = Vec::new();
    for page in TREES.iter().flat_map(|tree| pages(tree)) {
        let text = fs::read_to_string(&page).expect("a page");
        let name = page.strip_prefix(root()).expect("a page of this repository").display();
        for target in links(&text).iter().filter(|target| !target.starts_with("https://")) {
            count += 1;
            let (file, anchor) =
                target.split_once('#').map_or((target.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let file = if file.is_empty() { page.clone() } else { page.with_file_name("").join(file) };
            let found = match (anchor, fs::read_to_string(&file)) {
                (None, _) => file.exists(),
                (Some(anchor), Ok(text)) => prose(&text).iter().any(|line| is_heading_of(line, anchor)),
                (Some(_), Err(_)) => false,
            };
            if !found {
                faults.push(format!("{name} links to {target}"));
            }
        }
    }
    assert!(count > 50, "only {count} links were found");
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn files_that_the_architecture_names_exist() {
    let text = prose(&read("docs/architecture.md")).join("\n");
    // Every second part stands between backticks.
    let code = text.split('`').skip(1).step_by(2);
    let names: Vec<_> = code.filter(|name| name.ends_with(".rs") || name.ends_with('/')).collect();
    assert!(names.len() > 80, "only {} files were found", names.len());
    let is_missing = |name: &&&str| ![root(), &root().join("src")].iter().any(|folder| folder.join(name).exists());
    let missing: Vec<_> = names.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "docs/architecture.md names {missing:?}");
}

#[test]
fn links_and_headings_are_told_from_code() {
    let text = "# A `b`, c\n```\n# no\n[x](y)\n```\n[a](b.md#c) `[no](no)` and [d\ne](f) ![p](q.svg)";
    assert_eq!(links(text), ["b.md#c", "f", "q.svg"]);
    let headings: Vec<_> = prose(text).into_iter().filter(|line| is_heading_of(line, "a-b-c")).collect();
    assert_eq!(headings, ["# A `b`, c"]);
    assert!(!is_heading_of("not a heading", "not-a-heading"));
}

/// The targets of all links outside of code.
fn links(text: &str) -> Vec<String> {
    let text = prose(text).join("\n");
    // Every second part stands between backticks.
    let without_code: String = text.split('`').step_by(2).collect();
    without_code.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// The lines outside of fenced blocks.
fn prose(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        if !is_code && !is_fence {
            lines.push(line);
        }
    }
    lines
}

fn is_heading_of(line: &str, anchor: &str) -> bool {
    let title = line.trim_start_matches('#');
    title.len() < line.len() && title.strip_prefix(' ').is_some_and(|title| anchor_of(title) == anchor)
}

fn anchor_of(heading: &str) -> String {
    let letters = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    letters.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The pages in a folder, without those below it.
fn pages(tree: &str) -> Vec<PathBuf> {
    let folder = root().join(tree);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("reading {}: {error}", folder.display()));
    let mut pages: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    pages
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("reading {page}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
