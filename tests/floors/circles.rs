//! No circle of files: at each level of a room, what stands beside each other imports in one direction.
//!
//! A file and the folder of its name are one, and so is everything in that folder when it is seen from beside it. What a
//! module has from its parent is an import of the sibling that the parent has it from; what the parent defines itself, and
//! what it declares, is none. Tests may import what stands above them.

use crate::tokens::{Token, is_name, tokens};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

type Path = Vec<String>;

/// The modules of the crate, those within files too.
#[derive(Default)]
pub(crate) struct Modules(BTreeMap<Path, Module>);

#[derive(Default)]
struct Module {
    /// What `use` lines bring: the name here, and the path.
    imports: BTreeMap<String, Path>,
    /// All paths that stand in it.
    paths: Vec<Path>,
    is_within_file: bool,
}

/// Which neighbours a module imports, for each module that has children.
type Imports = BTreeMap<Path, BTreeMap<String, BTreeSet<String>>>;

impl Modules {
    /// Reads a file of this module.
    pub(crate) fn add(&mut self, module: Path, text: &str) {
        self.0.entry(module.clone()).or_default();
        let tokens = tokens(text);
        let (mut at, mut here) = (0, module);
        // For each open brace, whether it is a module's.
        let mut braces = Vec::new();
        while at < tokens.len() {
            match text_at(&tokens, at) {
                "#" if is_for_tests(&tokens, at) => at = item_end(&tokens, at),
                "{" => {
                    let is_module = at >= 2 && text_at(&tokens, at - 2) == "mod";
                    if is_module {
                        here.push(text_at(&tokens, at - 1).to_owned());
                        self.0.entry(here.clone()).or_default().is_within_file = true;
                    }
                    braces.push(is_module);
                }
                "}" if braces.pop() == Some(true) => drop(here.pop()),
                "use" => {
                    let mut found = Vec::new();
                    at = read_use(&tokens, at + 1, &[], &mut found);
                    let module = self.0.entry(here.clone()).or_default();
                    module.paths.extend(found.iter().map(|(_, path)| path.clone()));
                    module.imports.extend(found.into_iter().filter(|(name, _)| name != "*"));
                }
                name if name.starts_with(is_name) && text_at(&tokens, at + 1) == "::" => {
                    let mut path = vec![name.to_owned()];
                    while text_at(&tokens, at + 1) == "::" && text_at(&tokens, at + 2).starts_with(is_name) {
                        at += 2;
                        path.push(text_at(&tokens, at).to_owned());
                    }
                    self.0.entry(here.clone()).or_default().paths.push(path);
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// The modules that are in a circle with others beside them, as `room/folder/file`, and the way around.
    pub(crate) fn circles(&self) -> BTreeMap<String, String> {
        let mut circles = BTreeMap::new();
        for (parent, imports) in self.imports() {
            for start in imports.keys() {
                if let Some(way) = way_around(&imports, start) {
                    let mut path = parent.clone();
                    path.push(start.clone());
                    circles.insert(path.join("/"), way.join(" -> "));
                }
            }
        }
        circles
    }

    fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for (scope, module) in &self.0 {
            for path in &module.paths {
                let Some(target) = self.target(scope, path, 0) else { continue };
                let (from, to) = (self.file_of(scope), self.file_of(&target));
                let shared = from.iter().zip(to).take_while(|(one, other)| one == other).count();
                // Between rooms it is a matter of floors.
                if let (Some(one), Some(other), 1..) = (from.get(shared), to.get(shared), shared) {
                    let beside = imports.entry(from[..shared].to_vec()).or_default();
                    beside.entry(one.clone()).or_default().insert(other.clone());
                }
            }
        }
        imports
    }

    /// The module in which the path of a module ends; `None` where it leads out of the crate.
    fn target(&self, scope: &[String], path: &[String], depth: usize) -> Option<Path> {
        let mut here = scope.to_vec();
        let mut names = path.iter().peekable();
        match path.first()?.as_str() {
            // Of names that lead to each other none is found.
            _ if depth > 20 => return None,
            "crate" => {
                here.clear();
                names.next();
            }
            "self" | "super" => {
                while let Some(name) = names.next_if(|name| matches!(name.as_str(), "self" | "super")) {
                    if name == "super" {
                        here.pop();
                    }
                }
            }
            first => {
                let is_known = self.child(&here, first).is_some() || self.0.get(&here)?.imports.contains_key(first);
                is_known.then_some(())?;
            }
        }
        while let Some(name) = names.next() {
            if let Some(child) = self.child(&here, name) {
                here = child;
                continue;
            }
            let Some(known) = self.0.get(&here).and_then(|module| module.imports.get(name)) else { break };
            if known.len() == 1 && known[0] == *name {
                return None;
            }
            let rest: Path = known.iter().chain(names).cloned().collect();
            return self.target(&here, &rest, depth + 1);
        }
        Some(here)
    }

    fn child(&self, module: &[String], name: &str) -> Option<Path> {
        let child = [module, &[name.to_owned()]].concat();
        self.0.contains_key(&child).then_some(child)
    }

    /// The module that is a file of its own, around this one.
    fn file_of<'p>(&self, path: &'p [String]) -> &'p [String] {
        let is_within = |path: &[String]| self.0.get(path).is_some_and(|module| module.is_within_file);
        let mut path = path;
        while is_within(path) {
            path = &path[..path.len() - 1];
        }
        path
    }
}

/// A shortest way from a module to itself.
fn way_around(imports: &BTreeMap<String, BTreeSet<String>>, start: &str) -> Option<Vec<String>> {
    let mut came_from = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(here) = queue.pop_front() {
        for next in imports.get(here).into_iter().flatten() {
            if next == start {
                let mut way = vec![start.to_owned(), here.to_owned()];
                while let Some(before) = came_from.get(way.last().map_or("", String::as_str)) {
                    way.push(String::from(*before));
                }
                way.reverse();
                return Some(way);
            }
            if !came_from.contains_key(next.as_str()) {
                came_from.insert(next.as_str(), here);
                queue.push_back(next);
            }
        }
    }
    None
}

fn text_at<'t>(tokens: &[Token<'t>], at: usize) -> &'t str {
    tokens.get(at).map_or("", |token| token.text)
}

/// Whether `#[cfg(test)]` stands here.
fn is_for_tests(tokens: &[Token<'_>], at: usize) -> bool {
    ["#", "[", "cfg", "(", "test", ")", "]"].iter().enumerate().all(|(n, text)| text_at(tokens, at + n) == *text)
}

/// The last token of the item that follows an attribute.
fn item_end(tokens: &[Token<'_>], attribute: usize) -> usize {
    let mut depth = 0;
    for at in attribute + 7..tokens.len() {
        match text_at(tokens, at) {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 && matches!(text_at(tokens, at), "}" | ";") {
            return at;
        }
    }
    tokens.len()
}

/// Reads the tree of a `use` line; returns where it ends.
fn read_use(tokens: &[Token<'_>], start: usize, before: &[String], found: &mut Vec<(String, Path)>) -> usize {
    let (mut at, mut path) = (start, before.to_vec());
    loop {
        match text_at(tokens, at) {
            "::" => at += 1,
            "{" => {
                at += 1;
                while !matches!(text_at(tokens, at), "}" | "") {
                    at = read_use(tokens, at, &path, found);
                    at += usize::from(text_at(tokens, at) == ",");
                }
                return at + 1;
            }
            "*" => {
                found.push(("*".to_owned(), path));
                return at + 1;
            }
            name => {
                if name != "self" || path.is_empty() {
                    path.push(name.to_owned());
                }
                at += 1;
                if text_at(tokens, at) == "::" {
                    continue;
                }
                let mut alias = path.last().cloned().unwrap_or_default();
                if text_at(tokens, at) == "as" {
                    alias = text_at(tokens, at + 1).to_owned();
                    at += 2;
                }
                found.push((alias, path));
                return at;
            }
        }
    }
}

#[test]
fn circles_are_found_at_each_level() {
    let circles = |files: &[(&str, &str)]| {
        let mut modules = Modules::default();
        files.iter().for_each(|(name, text)| modules.add(name.split('/').map(str::to_owned).collect(), text));
        modules.circles().into_keys().collect::<Vec<_>>().join(" ")
    };
    let mutual = [("r", "mod a; mod b;"), ("r/a", "use super::b::B;"), ("r/b", "fn f() { crate::r::a::f() }")];
    assert_eq!(circles(&mutual), "r/a r/b");
    let one_way = [("r", "mod a; mod b; use b::B; use a::A;"), ("r/a", "use super::b::B;"), ("r/b", "struct B;")];
    assert_eq!(circles(&one_way), "");
    let by_the_parent =
        [("r", "mod a; mod b; pub use {a::A, b::*};"), ("r/a", "use super::b;"), ("r/b", "use super::A;")];
    assert_eq!(circles(&by_the_parent), "r/a r/b");
    let own_of_the_parent = [("r", "mod a; use a::A; struct R;"), ("r/a", "use super::R;")];
    assert_eq!(circles(&own_of_the_parent), "");
    let of_three = [
        ("r/a", "use super::b;"),
        ("r/b", "use super::{c::C};"),
        ("r/c", "use super::a as z;"),
        ("r/d", "use super::a;"),
    ];
    assert_eq!(circles(&[&[("r", "")], &of_three[..]].concat()), "r/a r/b r/c");
    let of_folders =
        [("r", ""), ("r/a", ""), ("r/a/x", "use crate::r::b::B;"), ("r/b", ""), ("r/b/y", "use super::super::a::x;")];
    assert_eq!(circles(&of_folders), "r/a r/b");
    let within_a_folder = [("r", ""), ("r/a", ""), ("r/a/x", "use super::y;"), ("r/a/y", "use super::x;")];
    assert_eq!(circles(&within_a_folder), "r/a/x r/a/y");
    let in_tests =
        [("r", ""), ("r/a", "use super::b;"), ("r/b", "#[cfg(test)] mod tests { use super::super::a; }\nfn f() {}")];
    assert_eq!(circles(&in_tests), "");
    let in_a_module_of_a_file = [("r", ""), ("r/a", "use super::b;"), ("r/b", "mod inner { use super::super::a; }")];
    assert_eq!(circles(&in_a_module_of_a_file), "r/a r/b");
    let of_rooms = [("r", "use crate::s;"), ("s", "use crate::r;")];
    assert_eq!(circles(&of_rooms), "");
}
