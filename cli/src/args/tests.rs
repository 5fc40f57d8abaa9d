//! Tests how arguments are parsed.

use super::*;

#[test]
fn the_definition_of_the_arguments_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn nodes_lists_nodes_and_confirms_deletions() {
    let parse = |args: &[&str]| Cli::try_parse_from(args).expect("the arguments are valid").command;
    assert!(
        matches!(parse(&["b", "nodes", "n1"]), Command::Nodes(NodesArgs { command: None, list }) if list.names == ["n1"])
    );
    assert!(matches!(
        parse(&["b", "nodes", "confirm-deletion", "--yes"]),
        Command::Nodes(NodesArgs { command: Some(_), .. })
    ));
}

#[test]
fn a_namespace_of_explain_must_not_contradict_the_flag() {
    let read = |args: &[&str]| Cli::read(args.iter().map(OsString::from).collect());
    assert!(read(&["b", "explain", "shop/web", "-n", "shop"]).is_ok());
    let error = read(&["b", "explain", "shop/web", "-n", "till"]).expect_err("two namespaces");
    assert_eq!(error.exit_code(), 2);
    assert!(read(&["b", "explain", "a/b/c"]).is_err());
}

#[test]
fn a_request_timeout_is_a_duration_or_seconds_and_zero_is_no_limit() {
    let limit = |text: &str| {
        Cli::try_parse_from(["b", "pools", "--request-timeout", text]).map(|cli| cli.global.request_timeout)
    };
    assert_eq!(limit("5s").ok(), Some(Duration::from_secs(5)));
    assert_eq!(limit("7").ok(), Some(Duration::from_secs(7)));
    assert_eq!(limit("0").ok(), Some(NO_LIMIT));
    assert!(limit("soon").is_err());
}

#[test]
fn a_dashboard_listens_only_at_loopback_addresses() {
    let parse = |address: &str| Cli::try_parse_from(["b", "dashboard", "--address", address]);
    assert!(parse("127.0.0.1").is_ok() && parse("::1").is_ok());
    for address in ["0.0.0.0", "::", "192.0.2.1", "localhost"] {
        assert!(parse(address).is_err(), "{address}");
    }
}

#[test]
fn drain_refuses_a_format_that_it_does_not_print() {
    let read = |args: &[&str]| Cli::read(args.iter().map(OsString::from).collect());
    assert!(read(&["b", "drain", "p"]).is_ok() && read(&["b", "pools", "-o", "json"]).is_ok());
    assert_eq!(read(&["b", "drain", "p", "-o", "json"]).expect_err("a format").exit_code(), 2);
}
