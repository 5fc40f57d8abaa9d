//! Checks the book in `docs/`: its table of contents, its links, and the messages that it quotes from the programs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use xtask::image::run;

/// The page that quotes the programs' messages, each message in a block quote. `…` stands for a part that varies.
const QUOTING_PAGE: &str = "docs/guide/troubleshooting.md";
/// The minimum length, in bytes, of a part of a quote that the test searches for. Shorter parts match too often.
const SHORTEST_QUOTE: usize = 8;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn files() -> Vec<String> {
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let listed = run(&mut git).unwrap();
    listed.lines().filter(|file| root().join(file).is_file()).map(str::to_owned).collect()
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file} can't be read: {error}"))
}

/// Whether the file's name has this extension.
fn is(file: &str, extension: &str) -> bool {
    Path::new(file).extension().is_some_and(|found| found == extension)
}

fn pages() -> Vec<String> {
    let is_page = |file: &String| file.starts_with("docs/") && is(file, "md") && file != "docs/SUMMARY.md";
    files().into_iter().filter(is_page).collect()
}

/// The targets of all links and pictures of a page.
fn links(text: &str) -> Vec<String> {
    let links = Parser::new_ext(text, Options::ENABLE_TABLES).filter_map(|event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url.to_string()),
        _ => None,
    });
    links.collect()
}

/// The anchors of a page's headings, as GitHub and mdBook build them.
fn anchors(text: &str) -> BTreeSet<String> {
    let (mut anchors, mut heading) = (BTreeSet::new(), None::<String>);
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match (event, &mut heading) {
            (Event::Start(Tag::Heading { .. }), _) => heading = Some(String::new()),
            (Event::End(TagEnd::Heading(_)), Some(title)) => {
                let kept = title.chars().filter(|one| one.is_alphanumeric() || matches!(one, ' ' | '-' | '_'));
                anchors.insert(kept.collect::<String>().to_lowercase().replace(' ', "-"));
                heading = None;
            }
            (Event::Text(part) | Event::Code(part), Some(title)) => title.push_str(&part),
            _ => {}
        }
    }
    anchors
}

/// The path, relative to the repository, that a link in `file` points to.
fn resolve(file: &str, link: &str) -> PathBuf {
    let mut path = Path::new(file).parent().unwrap().to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => {
                assert!(path.pop(), "{file}: the link {link} leaves the repository");
            }
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    path
}

#[test]
fn the_table_of_contents_has_each_page_once() {
    let targets = links(&read("docs/SUMMARY.md"));
    let named: BTreeSet<String> =
        targets.iter().map(|link| format!("docs/{}", link.trim_start_matches("./"))).collect();
    assert_eq!(named.len(), targets.len(), "docs/SUMMARY.md names a page twice");
    let existing: BTreeSet<String> = pages().into_iter().collect();
    let missing: Vec<&String> = named.difference(&existing).collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md names pages that do not exist: {missing:?}");
    let hidden: Vec<&String> = existing.difference(&named).collect();
    assert!(hidden.is_empty(), "add these pages to docs/SUMMARY.md: {hidden:?}");
}

#[test]
fn every_relative_link_leads_to_a_file_and_every_anchor_to_a_heading() {
    let mut wrong = Vec::new();
    let documents =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/SUMMARY.md"];
    for file in pages().into_iter().chain(documents.map(str::to_owned)) {
        for link in links(&read(&file)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { PathBuf::from(&file) } else { resolve(&file, path) };
            let is_markdown = is(&target.to_string_lossy(), "md");
            if !root().join(&target).exists() {
                wrong.push(format!("{file}: {link}: no such file"));
            } else if !anchor.is_empty() && is_markdown && !anchors(&read(&target.to_string_lossy())).contains(anchor) {
                wrong.push(format!("{file}: {link}: no such heading"));
            } else if file.starts_with("docs/") && !target.starts_with("docs") {
                // The book contains only the files in docs/, so a relative link to another file is broken in the book.
                // An absolute URL works in the book and on GitHub.
                wrong.push(format!(
                    "{file}: {link}: link to https://github.com/bobbin-dev/bobbin/blob/main/{}",
                    target.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The sources of the programs and the chart's policies, without the line breaks that rustfmt and YAML put into strings.
fn sources() -> String {
    let mut all = String::new();
    let is_source = |file: &String| {
        (is(file, "rs") && !file.starts_with("e2e/") && !file.starts_with("xtask/"))
            || file.starts_with("charts/bobbin/templates/policy/")
    };
    for file in files().into_iter().filter(is_source) {
        let text = read(&file).replace("\\\"", "\"");
        let mut continued = false;
        for line in text.lines() {
            let line = if continued { line.trim_start() } else { line };
            continued = line.ends_with('\\');
            all.push_str(line.strip_suffix('\\').unwrap_or(line));
            all.push_str(if continued { "" } else { "\n" });
        }
    }
    all
}

#[test]
fn each_message_that_the_troubleshooting_page_quotes_is_in_the_programs() {
    let sources = sources();
    let page = read(QUOTING_PAGE);
    let quotes: Vec<&str> = page.lines().filter_map(|line| line.trim_start().strip_prefix("> ")).collect();
    assert!(quotes.len() >= 10, "{QUOTING_PAGE} quotes only {} messages", quotes.len());
    let mut unknown = Vec::new();
    for quote in quotes {
        let parts: Vec<&str> = quote.split('…').map(str::trim).filter(|part| part.len() >= SHORTEST_QUOTE).collect();
        assert!(!parts.is_empty(), "the quote {quote:?} has no part that can be searched for");
        unknown.extend(parts.into_iter().filter(|part| !sources.contains(*part)));
    }
    assert!(unknown.is_empty(), "{QUOTING_PAGE} quotes what no program says: {unknown:#?}");
}

#[test]
fn a_quote_that_no_program_says_is_found() {
    assert!(!sources().contains("no program of Bobbin ever says this"));
    assert!(sources().contains("has no free address for node"));
    assert_eq!(anchors("# A `b` c-d: e?\n"), BTreeSet::from(["a-b-c-d-e".to_owned()]));
    assert_eq!(resolve("docs/guide/a.md", "../images/x.png"), Path::new("docs/images/x.png"));
}
