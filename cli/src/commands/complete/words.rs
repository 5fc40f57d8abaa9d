//! Decides what an incomplete word of a command line can become: a subcommand, a flag, or a value.

use clap::{Arg, Command};

/// What the incomplete word can become.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// One of these words.
    Words(Vec<Candidate>),
    /// The name of a file.
    Files,
    /// The name of an existing object that begins with `prefix`. Each candidate is `before`, for example `--context=`, followed by a name.
    /// The names in `given` are already in the line, so they are no candidates.
    Names { names: Names, before: String, prefix: String, given: Vec<String> },
}

/// A complete word, and what it means.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) word: String,
    pub(super) about: String,
}

/// Objects whose names are candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    Pools,
    Nodes,
    Pods,
    Namespaces,
    Contexts,
}

/// Finds out what `word` can be after the words of `line`.
pub(super) fn wanted(root: &mut Command, line: &[String], word: &str) -> Wanted {
    // `build` copies the global flags into all subcommands.
    root.build();
    let mut command = &*root;
    let (mut positionals, mut only_positionals) = (Vec::new(), false);
    let mut words = line.iter();
    while let Some(one) = words.next() {
        if !only_positionals && one == "--" {
            only_positionals = true;
        } else if !only_positionals && one.starts_with('-') && one.len() > 1 {
            // The next word is the value of the flag. If `line` has no next word, the incomplete `word` is the value.
            if let Some(flag) = flag_before_value(command, one)
                && words.next().is_none()
            {
                return value(flag, String::new(), word);
            }
        } else if let Some(inner) = command.find_subcommand(one).filter(|_| positionals.is_empty() && !only_positionals)
        {
            command = inner;
        } else {
            positionals.push(one.clone());
        }
    }
    if !only_positionals && word.starts_with('-') {
        return match word.split_once('=') {
            Some((name, prefix)) => find_flag(command, name)
                .map_or(Wanted::Words(Vec::new()), |flag| value(flag, format!("{name}="), prefix)),
            None => Wanted::Words(flags(command, word)),
        };
    }
    let found = if positionals.is_empty() && !only_positionals { subcommands(command, word) } else { Vec::new() };
    // A command's last argument may be a list.
    let of_command: Vec<&Arg> = command.get_positionals().collect();
    let repeats = |arg: &&&Arg| arg.get_num_args().is_some_and(|range| range.max_values() > 1);
    match of_command.get(positionals.len()).or_else(|| of_command.last().filter(repeats)) {
        // The candidates are either names or subcommands. If nothing is typed yet, suggest the names, because an empty
        // word matches every subcommand.
        Some(arg) if found.is_empty() || word.is_empty() => match value(arg, String::new(), word) {
            Wanted::Names { names, before, prefix, .. } => Wanted::Names { names, before, prefix, given: positionals },
            other => other,
        },
        _ => Wanted::Words(found),
    }
}

/// The flag, if its value is the next word.
fn flag_before_value<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    // `-ojson` and `--output=json` contain their values.
    let is_alone = word.starts_with("--") || word.len() == 2;
    find_flag(command, word).filter(|flag| is_alone && takes_value(flag))
}

fn find_flag<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| match word.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => arg.get_short().is_some_and(|short| word.strip_prefix('-').is_some_and(|rest| rest.starts_with(short))),
    })
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

fn value(arg: &Arg, before: String, prefix: &str) -> Wanted {
    let possible = arg.get_possible_values();
    if !possible.is_empty() {
        let words = possible.iter().filter(|one| !one.is_hide_set() && one.get_name().starts_with(prefix));
        let candidate = |one: &clap::builder::PossibleValue| Candidate {
            word: format!("{before}{}", one.get_name()),
            about: one.get_help().map(ToString::to_string).unwrap_or_default(),
        };
        return Wanted::Words(words.map(candidate).collect());
    }
    let kind = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    let names = match kind {
        "POOL" => Names::Pools,
        "NODE" => Names::Nodes,
        "POD" => Names::Pods,
        "NAMESPACE" => Names::Namespaces,
        "CONTEXT" => Names::Contexts,
        "FILE" => return Wanted::Files,
        _ => return Wanted::Words(Vec::new()),
    };
    Wanted::Names { names, before, prefix: prefix.to_owned(), given: Vec::new() }
}

fn flags(command: &Command, prefix: &str) -> Vec<Candidate> {
    let visible = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let candidate = |arg: &Arg| {
        let word = format!("--{}", arg.get_long()?);
        let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
        word.starts_with(prefix).then_some(Candidate { word, about })
    };
    visible.filter_map(candidate).collect()
}

fn subcommands(command: &Command, prefix: &str) -> Vec<Candidate> {
    let visible = command.get_subcommands().filter(|one| !one.is_hide_set() && one.get_name().starts_with(prefix));
    visible
        .map(|one| Candidate {
            word: one.get_name().to_owned(),
            about: one.get_about().map(ToString::to_string).unwrap_or_default(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::Cli;

    fn of(line: &[&str], word: &str) -> Wanted {
        let line: Vec<String> = line.iter().map(ToString::to_string).collect();
        wanted(&mut Cli::command(), &line, word)
    }

    fn words(line: &[&str], word: &str) -> Vec<String> {
        match of(line, word) {
            Wanted::Words(words) => words.into_iter().map(|one| one.word).collect(),
            other => panic!("{line:?} {word}: {other:?}"),
        }
    }

    fn names(line: &[&str], word: &str) -> Names {
        match of(line, word) {
            Wanted::Names { names, .. } => names,
            other => panic!("{line:?} {word}: {other:?}"),
        }
    }

    #[test]
    fn the_first_word_is_a_command_and_a_dash_begins_a_flag() {
        assert_eq!(words(&[], "po"), ["pools"]);
        assert!(words(&[], "").len() > 8);
        assert_eq!(words(&["drain"], "--ev"), ["--evict"]);
        assert_eq!(words(&["drain"], "--cont"), ["--context"]);
        assert_eq!(words(&["completion"], "z"), ["zsh"]);
    }

    #[test]
    fn names_of_objects_are_wanted_where_the_arguments_name_their_kind() {
        assert_eq!(names(&["map"], ""), Names::Pools);
        assert_eq!(names(&["pools", "a"], "b"), Names::Pools);
        assert_eq!(names(&["nodes"], ""), Names::Nodes);
        assert_eq!(names(&["-o", "json", "drain"], "p"), Names::Pools);
        assert_eq!(names(&["explain", "-n", "shop"], ""), Names::Pods);
        assert_eq!(names(&["pools", "-n"], "sh"), Names::Namespaces);
        assert_eq!(names(&["--context"], ""), Names::Contexts);
        assert!(words(&["map", "a"], "").is_empty());
    }

    #[test]
    fn values_of_flags_come_after_a_space_or_an_equals_sign() {
        assert_eq!(words(&["pools", "-o"], "j"), ["json"]);
        assert_eq!(words(&["pools"], "--output=y"), ["--output=yaml"]);
        assert_eq!(of(&["pools", "--kubeconfig"], ""), Wanted::Files);
        let (names, before, prefix) = (Names::Contexts, "--context=".into(), "a".into());
        let context = Wanted::Names { names, before, prefix, given: Vec::new() };
        assert_eq!(of(&[], "--context=a"), context);
    }

    #[test]
    fn only_names_of_the_same_list_are_given_already() {
        let given = |line: &[&str]| match of(line, "") {
            Wanted::Names { given, .. } => given,
            other => panic!("{line:?}: {other:?}"),
        };
        assert_eq!(given(&["pools", "a"]), ["a"]);
        assert!(given(&["explain", "-n", "web"]).is_empty());
    }

    #[test]
    fn a_command_below_a_list_of_names_is_found_by_its_first_letters() {
        assert_eq!(words(&["nodes"], "conf"), ["confirm-deletion"]);
        assert_eq!(words(&["nodes", "confirm-deletion"], "--y"), ["--yes"]);
    }
}
