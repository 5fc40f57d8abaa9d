//! Tests that the settings have the right defaults, and that the agent refuses invalid values.

use std::time::Duration;

use clap::Parser;

use super::{Args, Mode, Routing, UnknownPod};

#[test]
fn a_node_name_is_all_that_must_be_said() {
    let args = Args::try_parse_from(["bobbin-agent", "--node-name", "n1"]).unwrap();
    assert_eq!(args.confirm_wait, Duration::from_millis(450));
    assert_eq!(args.relist_interval, Duration::from_mins(15));
    assert_eq!((args.mode, args.routing, args.unknown_pod), (Mode::Run, Routing::None, UnknownPod::Refuse));
}

#[test]
fn an_unknown_log_format_is_refused_with_the_choices() {
    let refused = Args::try_parse_from(["bobbin-agent", "--node-name=n1", "--log-format=xml"]).unwrap_err().to_string();
    assert!(refused.contains("--log-format") && refused.contains("text or json"), "{refused}");
}

#[test]
fn an_add_can_not_wait_longer_than_the_plugin() {
    for flag in ["--add-timeout", "--confirm-wait"] {
        let parse = |wait: &str| Args::try_parse_from(["bobbin-agent", "--node-name=n1", &format!("{flag}={wait}")]);
        assert!(parse("50s").is_ok());
        let refused = parse("51s").unwrap_err().to_string();
        assert!(refused.contains(flag) && refused.contains("\"51s\" is too long: set at most 50 s"), "{refused}");
    }
}
