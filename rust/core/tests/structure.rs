//! Rules of the source that a compiler does not hold: layers, who names libc, sizes, module texts, SAFETY.
//!
//! The layer table is read from `src/lib.rs`, so the text and the test cannot differ.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines a Rust file may have.
const MAX_LINES: usize = 600;
/// Folders that may name libc.
const LIBC_FOLDERS: [&str; 2] = ["sys", "boundary"];

struct Source {
    /// Relative to `src`.
    name: String,
    text: String,
}

impl Source {
    /// The folder under `src`, or "" for files beside lib.rs.
    fn folder(&self) -> &str {
        self.name.split_once('/').map_or("", |(folder, _)| folder)
    }

    /// Lines with comments and string literals blanked, numbered from 1.
    fn code(&self) -> impl Iterator<Item = (usize, String)> + '_ {
        self.text.lines().enumerate().map(|(i, line)| (i + 1, strip(line)))
    }
}

/// The line without its `//` comment and without what stands in string literals.
fn strip(line: &str) -> String {
    let mut out = String::new();
    let (mut in_string, mut escaped, mut previous) = (false, false, ' ');
    for c in line.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
        } else if c == '"' && previous != '\'' {
            in_string = true;
        } else if c == '/' && previous == '/' {
            out.pop();
            return out;
        } else {
            out.push(c);
        }
        previous = c;
    }
    out
}

fn sources_in(root: &Path) -> Vec<Source> {
    fn walk(folder: &Path, root: &Path, out: &mut Vec<Source>) {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                walk(&path, root, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
                out.push(Source { name, text: fs::read_to_string(&path).expect("readable") });
            }
        }
    }
    let mut out = Vec::new();
    walk(root, root, &mut out);
    assert!(!out.is_empty(), "no source below {}", root.display());
    out
}

fn core() -> Vec<Source> {
    sources_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

/// Folder to layer, from the table in lib.rs: `//! | 9 | chan, sync | what |`.
fn layers() -> BTreeMap<String, u32> {
    let sources = core();
    let lib = sources.iter().find(|s| s.name == "lib.rs").expect("lib.rs");
    let mut table = BTreeMap::new();
    for row in lib.text.lines().filter_map(|l| l.strip_prefix("//! |")) {
        let mut cells = row.split('|').map(str::trim);
        let (Some(layer), Some(folders)) = (cells.next(), cells.next()) else { continue };
        let Ok(layer) = layer.parse() else { continue };
        for folder in folders.split(',') {
            table.insert(folder.trim().to_owned(), layer);
        }
    }
    table
}

/// What follows `crate::` on a line: the folders used, also in `use crate::{a::b, c}`.
fn folders_used(line: &str) -> Vec<String> {
    let word = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut out = Vec::new();
    for (i, _) in line.match_indices("crate::") {
        if line[..i].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &line[i + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            out.push(word(rest));
            continue;
        };
        let mut depth = 0;
        for part in group.split_inclusive(['{', '}', ',']) {
            if depth == 0 {
                out.push(word(part.trim()));
            }
            depth += i32::from(part.ends_with('{')) - i32::from(part.ends_with('}'));
            if depth < 0 {
                break;
            }
        }
    }
    out.retain(|f| !f.is_empty());
    out
}

fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs") || name.ends_with("model.rs") || name.contains("/shuttled/")
}

#[test]
fn test_layers_each_folder_uses_only_lower_ones() {
    let layers = layers();
    let mut wrong = Vec::new();
    for source in core().iter().filter(|s| s.name != "lib.rs" && !is_test(&s.name)) {
        let own = *layers.get(source.folder()).unwrap_or_else(|| panic!("{} is in no layer of lib.rs", source.name));
        // A use list may go over several lines; joined, every path is seen whole.
        let code = source.code().map(|(_, l)| l).collect::<Vec<_>>().join(" ");
        for used in folders_used(&code) {
            match layers.get(&used) {
                Some(_) if used == source.folder() => {}
                Some(&layer) if layer < own => {}
                Some(&layer) => wrong.push(format!("{} (layer {own}) uses {used} (layer {layer})", source.name)),
                None => wrong.push(format!("{} uses crate::{used}, which is no folder", source.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn test_layers_table_names_every_folder_and_only_folders() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found: Vec<String> = fs::read_dir(&src)
        .expect("src")
        .map(|e| e.expect("an entry"))
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(layers().into_keys().collect::<Vec<_>>(), found);
}

#[test]
fn test_libc_is_named_only_where_the_system_is_reached() {
    let mut wrong = Vec::new();
    for source in core().iter().filter(|s| !LIBC_FOLDERS.contains(&s.folder())) {
        for (n, line) in source.code() {
            if line.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|w| w == "libc") {
                wrong.push(format!("{}:{n}", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "libc is named in {wrong:?}");
}

#[test]
fn test_files_stay_short_and_open_with_their_text() {
    let mut wrong = Vec::new();
    let tests = sources_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"));
    for source in core().iter().chain(&tests) {
        let lines = source.text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines, at most {MAX_LINES}", source.name));
        }
        if !source.text.starts_with("//! ") {
            wrong.push(format!("{}: does not open with a //! text", source.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A line that opens unsafe code: a block or an impl, not a declaration that only demands it of callers.
fn opens_unsafe(line: &str) -> bool {
    let t = line.trim();
    t.contains("unsafe {") || t.starts_with("unsafe impl")
}

#[test]
fn test_unsafe_code_says_why_it_holds() {
    let mut wrong = Vec::new();
    for source in core() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (n, code) in source.code().filter(|(_, l)| opens_unsafe(l)) {
            // The reason stands on the comment lines above the statement, which may start up to six lines earlier.
            let near = lines[n.saturating_sub(9)..n].iter().any(|l| l.contains("SAFETY"));
            if !near && !code.trim_start().starts_with("pub unsafe extern") {
                wrong.push(format!("{}:{n}: {}", source.name, code.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "unsafe without SAFETY:\n{}", wrong.join("\n"));
}

#[test]
fn test_reader_sees_paths_groups_comments_and_strings() {
    assert_eq!(folders_used("use crate::sys::clock;"), ["sys"]);
    assert_eq!(folders_used("let x = crate::chan::f(); crate::sched::g()"), ["chan", "sched"]);
    assert_eq!(folders_used("use crate::{sys::{a, b}, stack, chan::C}; other"), ["sys", "stack", "chan"]);
    assert!(folders_used("use gort_crate::chan::C;").is_empty());
    assert_eq!(strip("let a = \"libc // x\"; // libc"), "let a = ; ");
    assert!(opens_unsafe("let x = unsafe { f() };") && opens_unsafe("unsafe impl Send for X {}"));
    assert!(!opens_unsafe("pub unsafe fn f() {"));
}
